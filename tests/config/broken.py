"""Configuration files that are wrong on purpose, by kind: each with the line, the key and a word of the remedy."""

from typing import NamedTuple

PEER = '[[peers]]\nname = "hv2"\naddresses = ["192.0.2.2"]\n'
KEY = "0f" * 32


class Broken(NamedTuple):
    kind: str
    text: str
    line: int
    key: str
    remedy: str


FILES = [
    Broken(
        "hours that are none",
        PEER + 'hours = [{ begin = "8:00", end = "18:00", link_bytes_per_s_max = 1e6 }]\n',
        4,
        "peers[0].hours[0].begin",
        "correct it",
    ),
    Broken(
        "hours without an end",
        '[[domains]]\nnames = ["db"]\nhours = [{ begin = "08:00", end = "08:00", link_bytes_per_s_max = "1MB/s" }]\n',
        3,
        "domains[0].hours[0].end",
        "link_bytes_per_s_max of the entry",
    ),
    Broken("domain named twice", '[[domains]]\nnames = ["db", "db"]\n', 2, "domains[0].names[1]", "leave one"),
    Broken("misspelt key", "[link]\nchanels = 3\n", 2, "link.chanels", "did you mean link.channels?"),
    Broken("misspelt key", 'nmae = "hv1"\n', 1, "nmae", "did you mean name?"),
    Broken("misspelt key", PEER + "prot = 7802\n", 4, "peers[0].prot", "did you mean peers[0].port?"),
    Broken("misspelt table", "\n[lnik]\nport = 7802\n", 2, "lnik", "did you mean link?"),
    Broken("unknown key", "# a comment\nxyzzy = 1\n", 2, "xyzzy", "known here: name, libvirt_uri"),
    Broken("key of another table", "[link]\ncache_bytes = 1\n", 2, "link.cache_bytes", "it is a key of [encoding]"),
    Broken("key after a table", PEER + 'log_level = "info"\n', 4, "peers[0].log_level", "above the first [table]"),
    Broken("text for a number", '[link]\nport = "7802"\n', 2, "link.port", "it is 7802"),
    Broken("number for text", "name = 5\n", 1, "name", "without the key"),
    Broken("number for a path", "[tls]\nca = 5\n", 2, "tls.ca", "correct it"),
    Broken("text for a boolean", '[intercept]\nredirect = "yes"\n', 2, "intercept.redirect", "it is true"),
    Broken("fraction for a whole number", "[link]\nchannels = 1.5\n", 2, "link.channels", "it is 0"),
    Broken("boolean for a number", "[link]\nchannels = true\n", 2, "link.channels", "it is 0"),
    Broken("text for a list", '[[peers]]\nname = "hv2"\naddresses = "192.0.2.2"\n', 3, "peers[0].addresses", '["'),
    Broken("number in a list", '[coordination]\nvoters = ["hv1", 2]\n', 2, "coordination.voters[1]", "correct it"),
    Broken("one bracket for two", '[peers]\nname = "hv2"\n', 1, "peers", "[[peers]]"),
    Broken("value for a table", "link = 3\n", 1, "link", "write [link]"),
    Broken("above its range", "[link]\nchannels = 5000\n", 2, "link.channels", "it is 0"),
    Broken("below its range", "[link]\nconnect_timeout_s = 0\n", 2, "link.connect_timeout_s", "it is 5.0"),
    Broken("below its range", "[link]\nport = 0\n", 2, "link.port", "it is 7802"),
    Broken(
        "above its range", "[encoding]\ncache_bytes = 100000000000000000000000\n", 2, "encoding.cache_bytes", "it is"
    ),
    Broken("not finite", "[link]\nloss_s_max = inf\n", 2, "link.loss_s_max", "it is 120.0"),
    Broken("not finite", "[link]\nloss_s_max = nan\n", 2, "link.loss_s_max", "it is 120.0"),
    Broken("no such choice", '[encoding]\ncodec = "gzip"\n', 2, "encoding.codec", 'it is "auto"'),
    Broken("no such choice", 'log_level = "loud"\n', 1, "log_level", 'it is "info"'),
    Broken("unknown unit", '[encoding]\ncache_bytes = "1 Gib"\n', 2, "encoding.cache_bytes", "units are B, kB"),
    Broken("unit of another quantity", '[link]\nloss_s_max = "2MiB"\n', 2, "link.loss_s_max", "units are ms, s"),
    Broken("unit out of range", '[link]\nin_flight_ms_max = "1min"\n', 2, "link.in_flight_ms_max", "it is 50"),
    Broken("missing key", '[[peers]]\nname = "hv2"\n', 1, "peers[0].addresses", "add addresses"),
    Broken("missing key", PEER + '\n[[peers]]\naddresses = ["192.0.2.3"]\n', 5, "peers[1].name", "add name"),
    Broken("empty list", '[[peers]]\nname = "hv2"\naddresses = []\n', 3, "peers[0].addresses", "write ["),
    Broken("no TOML", "name = hv1\n", 1, "name", "quotation marks"),
    Broken("no TOML", '\nname = "hv1\n', 2, "name", "quotation mark is missing"),
    Broken("no TOML", "[intercept]\nredirect = True\n", 2, "redirect", "true and false"),
    Broken("duplicate key", "[link]\nport = 1\nport = 2\n", 3, "port", "leave one out"),
    Broken("duplicate table", "[link]\nport = 1\n\n[link]\nchannels = 2\n", 4, "[link]", "one heading"),
    Broken("JSON", '{"name": "hv1"}\n', 1, '{"name": "hv1"}', "JSON"),
    Broken("YAML", "name: hv1\n", 1, "name: hv1", "YAML"),
    Broken("byte order mark", '\ufeffname = "hv1"\n', 1, "\ufeffname", "byte order mark"),
    Broken("address that is none", PEER.replace("192.0.2.2", "192.0.2.300"), 3, "peers[0].addresses[0]", "correct"),
    Broken("path that is a name", PEER + 'link_addresses = ["hv2"]\n', 4, "peers[0].link_addresses[0]", "192.0.2.12"),
    Broken(
        "path that stands there twice",
        PEER + 'link_addresses = ["192.0.2.2", "192.0.2.2"]\n',
        4,
        "peers[0].link_addresses[1]",
        "leave one of them out",
    ),
    Broken("network", PEER.replace("192.0.2.2", "192.0.2.0/24"), 3, "peers[0].addresses[0]", "single addresses"),
    Broken("loopback", PEER.replace("192.0.2.2", "127.0.0.1"), 3, "peers[0].addresses[0]", "other hosts reach"),
    Broken("address with a port", PEER.replace("192.0.2.2", "hv2:7802"), 3, "peers[0].addresses[0]", "address alone"),
    Broken("address twice", PEER + PEER.replace("hv2", "hv3"), 6, "peers[1].addresses[0]", "leave one"),
    Broken("name twice", PEER + PEER.replace("192.0.2.2", "192.0.2.3"), 5, "peers[1].name", "certificates"),
    Broken("no host name", PEER.replace("hv2", "hv 2 !"), 2, "peers[0].name", "certificate carries"),
    Broken("no host name", 'name = "hv_1!"\n', 1, "name", "certificate carries"),
    Broken("listener that is none", 'metrics_listen = "7803"\n', 1, "metrics_listen", "127.0.0.1:7803"),
    Broken("listener that is none", 'metrics_listen = "127.0.0.1:99999"\n', 1, "metrics_listen", "127.0.0.1:7803"),
    Broken("listener that is none", '[link]\nlisten = "everything"\n', 2, "link.listen", "every address"),
    Broken("port twice", "[link]\nport = 7801\n", 2, "link.port", "defaults: intercept.port 7801"),
    Broken("port twice", 'metrics_listen = "127.0.0.1:7802"\n', 1, "metrics_listen", "defaults"),
    Broken("port of QEMU", "[link]\nport = 49160\n", 2, "link.port", "the default is 7802"),
    Broken("range upside down", "[intercept]\nport_min = 50000\n", 2, "intercept.port_min", "lower port first"),
    Broken("template", '[placement]\nuri = "qemu+ssh://{adress}/system"\n', 2, "placement.uri", "{address} or {name}"),
    Broken("template", '[placement]\nuri = "qemu+ssh://{address/system"\n', 2, "placement.uri", "{address} or {name}"),
    Broken("template", '[placement]\nuri = "qemu:///system"\n', 2, "placement.uri", "{address} or {name}"),
    Broken("no QEMU", 'libvirt_uri = "vbox:///session"\n', 1, "libvirt_uri", "qemu:///system"),
    Broken("relative path", '[tls]\nkey = "tls/host.key"\n', 2, "tls.key", "slash"),
    Broken("long path", f'runtime_directory = "/run/{"x" * 100}"\n', 1, "runtime_directory", "/run/dwcp-migrate"),
    Broken("contradiction", "[link]\nchannels = 100\n", 2, "link.channels", "raise link.channels_max"),
    Broken("contradiction", "[intercept]\nexplicit_port = 49215\n", 1, "intercept.explicit_peer", "one of the peers"),
    Broken("contradiction", "[coordination]\nrequire = true\n", 2, "coordination.require", "hosts with a vote"),
    Broken(
        "contradiction",
        '[bandwidth]\nlink_bytes_per_s_max = "1Gbit/s"\nreserved_bytes_per_s = "2Gbit/s"\n',
        3,
        "bandwidth.reserved_bytes_per_s",
        "reserve less",
    ),
    Broken("endpoint", '[coordination]\nendpoints = ["nonsense"]\n', 2, "coordination.endpoints[0]", "https://"),
    Broken(
        "half of a pair",
        '[coordination.etcd]\nca = "/ca"\ncertificate = "/pem"\n',
        3,
        "coordination.etcd.certificate",
        "coordination.etcd.key is missing",
    ),
    Broken("half of a pair", '[coordination.etcd]\nusername = "u"\n', 2, "coordination.etcd.username", "password_file"),
    Broken("half of a pair", '[metrics]\nusername = "u"\n', 2, "metrics.username", "metrics.password_file is missing"),
    Broken("stranger", 'name = "hv1"\n[coordination]\nvoters = ["hv9"]\n', 3, "coordination.voters[0]", "[[peers]]"),
    Broken("voter twice", '[coordination]\nvoters = ["hv1", "hv1"]\n', 2, "coordination.voters[1]", "leave one"),
    Broken("bad key", '[coordination.pbft]\ncluster = "abc"\n', 2, "coordination.pbft.cluster", "it is"),
    Broken(
        "key twice",
        f'[coordination.pbft]\ncluster = "{"ab" * 16}"\nmembers = [{{name = "a", key = "{KEY}"}}, '
        f'{{name = "b", key = "{KEY}"}}]\n',
        1,
        "coordination.pbft",
        "makes its own",
    ),
]
