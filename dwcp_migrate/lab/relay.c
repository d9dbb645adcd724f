/* The lab's WAN: one TUN device in each hypervisor's network namespace, and this process between them.
 *
 *     relay SOCKET SEED NAME=NETNS=ADDRESS...
 *
 * Each host has one uplink. A packet read from a host's device passes, in this order, through
 *     loss      drawn for each packet (no offloads on these devices: a packet is one MTU at most), seeded
 *     queue     drop-tail, bounded in bytes, drained at the uplink's rate
 *     delay     one way
 * and is then written to the device of the host that has its destination address. Downlinks are not limited.
 *
 * Prints `ready` once the devices exist. SOCKET takes one command a connection, answered with one line:
 *     set HOST rate_bytes_per_s delay_us loss_ppm queue_bytes    for this host's uplink
 *     cut HOST | heal HOST                                       both directions of this host
 *     stats                                                      JSON: counters of each uplink since the start
 *
 * Sleeps in ppoll until a packet comes or one is due; packets due within TICK_NS are delivered together, so the delay is
 * exact to that. The memory is bounded: PACKETS_MAX packets in flight for each host, beyond that the queue is full.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define HOSTS_MAX 16
#define PACKET_MAX 1504          /* MTU 1500; TUN without a header hands over bare IP packets */
#define PACKETS_MAX (1 << 16)    /* 100 MB: 1 Gbit/s for 700 ms of delay and queue */
#define BATCH 64                 /* packets read from one host before the others get their turn */
#define TICK_NS 50000
#define SECOND_NS 1000000000ull

struct packet {
    uint64_t due_ns;
    uint16_t size;
    uint8_t to;
    uint8_t bytes[PACKET_MAX];
};

struct host {
    char name[64];
    int fd;
    in_addr_t address;
    int cut;
    /* its uplink */
    uint64_t rate_bytes_per_s, delay_ns, queue_bytes, random;
    uint32_t loss_ppm;
    uint64_t busy_until_ns; /* when the last packet taken will have left the queue */
    uint64_t last_due_ns;
    struct packet *ring;
    uint32_t head, tail;
    /* counters */
    uint64_t sent_bytes, sent_packets, lost_packets, dropped_packets, delivered_bytes, delivered_packets;
};

static struct host hosts[HOSTS_MAX];
static int host_count;

static void die(const char *what)
{
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND_NS + now.tv_nsec;
}

/* xorshift64*: Marsaglia 2003, Vigna 2014 */
static uint64_t draw(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 2685821657736338717ull;
}

static int open_tun(const char *netns)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int there = open(netns, O_RDONLY | O_CLOEXEC);
    int fd;
    if (home < 0 || there < 0 || setns(there, CLONE_NEWNET) < 0)
        die(netns);
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    strcpy(request.ifr_name, "wan0");
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
        die("/dev/net/tun");
    if (setns(home, CLONE_NEWNET) < 0)
        die("back to the own network namespace");
    close(there);
    close(home);
    return fd;
}

static void add_host(char *argument, uint64_t seed)
{
    struct host *host = &hosts[host_count];
    char *name = strtok(argument, "="), *netns = strtok(NULL, "="), *address = strtok(NULL, "=");
    if (host_count == HOSTS_MAX || !address || strlen(name) >= sizeof host->name
        || inet_pton(AF_INET, address, &host->address) != 1) {
        fprintf(stderr, "relay: a host is NAME=NETNS=ADDRESS, %d at most\n", HOSTS_MAX);
        exit(2);
    }
    strcpy(host->name, name);
    host->fd = open_tun(netns);
    host->random = (seed + 1) * 0x9e3779b97f4a7c15ull + host_count * 0xd1b54a32d192ed03ull;
    host->rate_bytes_per_s = 125000000;
    host->queue_bytes = 1 << 20;
    host->ring = calloc(PACKETS_MAX, sizeof *host->ring);
    if (!host->ring)
        die("memory");
    host_count++;
}

static int destination(const uint8_t *packet, int size)
{
    in_addr_t address;
    if (size < 20 || packet[0] >> 4 != 4)
        return -1;
    memcpy(&address, packet + 16, 4);
    for (int i = 0; i < host_count; i++)
        if (hosts[i].address == address)
            return i;
    return -1;
}

/* One packet stands in the ring's tail slot: let it pass the uplink, or drop it. */
static void take(struct host *from, int size, uint64_t now)
{
    struct packet *packet = &from->ring[from->tail % PACKETS_MAX];
    int to = destination(packet->bytes, size);
    uint64_t backlog_ns = from->busy_until_ns > now ? from->busy_until_ns - now : 0;
    if (to < 0 || from->cut || hosts[to].cut)
        return;
    if (backlog_ns * (from->rate_bytes_per_s / 1e9) + size > from->queue_bytes) {
        from->dropped_packets++;
        return;
    }
    from->sent_bytes += size;
    from->sent_packets++;
    from->busy_until_ns = (backlog_ns ? from->busy_until_ns : now) + size * SECOND_NS / from->rate_bytes_per_s;
    if (draw(&from->random) % 1000000 < from->loss_ppm) {
        from->lost_packets++;
        return;
    }
    packet->size = size;
    packet->to = to;
    packet->due_ns = from->busy_until_ns + from->delay_ns;
    if (packet->due_ns < from->last_due_ns) /* the delay was shortened: keep the order */
        packet->due_ns = from->last_due_ns;
    from->last_due_ns = packet->due_ns;
    from->tail++;
}

static void receive(struct host *from, uint64_t now)
{
    for (int i = 0; i < BATCH; i++) {
        static uint8_t overflow[PACKET_MAX];
        int full = from->tail - from->head == PACKETS_MAX;
        uint8_t *place = full ? overflow : from->ring[from->tail % PACKETS_MAX].bytes;
        ssize_t size = read(from->fd, place, PACKET_MAX);
        if (size <= 0)
            return;
        if (full)
            from->dropped_packets++;
        else
            take(from, size, now);
    }
}

static void deliver(struct host *from, uint64_t now)
{
    while (from->head != from->tail) {
        struct packet *packet = &from->ring[from->head % PACKETS_MAX];
        if (packet->due_ns > now + TICK_NS / 2)
            return;
        from->head++;
        if (from->cut || hosts[packet->to].cut)
            continue;
        if (write(hosts[packet->to].fd, packet->bytes, packet->size) == packet->size) {
            from->delivered_bytes += packet->size;
            from->delivered_packets++;
        }
    }
}

static struct host *find(const char *name)
{
    for (int i = 0; i < host_count; i++)
        if (!strcmp(hosts[i].name, name))
            return &hosts[i];
    return NULL;
}

static int append(char *text, int length, int size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    length += vsnprintf(text + length, length < size ? size - length : 0, format, arguments);
    va_end(arguments);
    return length < size ? length : size - 1;
}

static int stats(char *text, int size)
{
    int n = append(text, 0, size, "{");
    for (int i = 0; i < host_count; i++) {
        struct host *h = &hosts[i];
        n = append(text, n, size, "%s\"%s\":{\"sent_bytes\":%lu,\"sent_packets\":%lu,\"lost_packets\":%lu,"
                   "\"dropped_packets\":%lu,\"delivered_bytes\":%lu,\"delivered_packets\":%lu,\"cut\":%s,"
                   "\"rate_bytes_per_s\":%lu,\"delay_us\":%lu,\"loss_ppm\":%u,\"queue_bytes\":%lu}",
                   i ? "," : "", h->name, h->sent_bytes, h->sent_packets, h->lost_packets, h->dropped_packets,
                   h->delivered_bytes, h->delivered_packets, h->cut ? "true" : "false", h->rate_bytes_per_s,
                   h->delay_ns / 1000, h->loss_ppm, h->queue_bytes);
    }
    return append(text, n, size, "}\n");
}

static int execute(const char *command, char *reply, int size)
{
    char verb[8], name[64];
    uint64_t rate, delay_us, queue;
    uint32_t loss_ppm;
    int count = sscanf(command, "%7s %63s %lu %lu %u %lu", verb, name, &rate, &delay_us, &loss_ppm, &queue);
    struct host *host = count >= 2 ? find(name) : NULL;
    if (count >= 1 && !strcmp(verb, "stats"))
        return stats(reply, size);
    if (!host)
        return append(reply, 0, size, "error: no such host or command\n");
    if (!strcmp(verb, "cut") || !strcmp(verb, "heal"))
        host->cut = !strcmp(verb, "cut");
    else if (!strcmp(verb, "set") && count == 6 && rate > 0) {
        host->rate_bytes_per_s = rate;
        host->delay_ns = delay_us * 1000;
        host->loss_ppm = loss_ppm;
        host->queue_bytes = queue;
    } else
        return append(reply, 0, size, "error: set HOST rate_bytes_per_s delay_us loss_ppm queue_bytes\n");
    return append(reply, 0, size, "ok\n");
}

/* The command comes in one piece right after the connection; a client that dawdles is dropped, packets cannot wait. */
static int admit(int listener)
{
    int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return client < 0 ? listener : client;
}

/* A client may have been preempted before it spoke: it is polled like all others and never waited for. */
static void serve(int client)
{
    static char command[256], reply[1 << 14];
    ssize_t size = recv(client, command, sizeof command - 1, 0);
    if (size > 0) {
        command[size] = 0;
        int length = execute(command, reply, sizeof reply);
        send(client, reply, length, MSG_NOSIGNAL);
    }
    close(client);
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        die(path);
    }
    strcpy(address.sun_path, path);
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 16) < 0)
        die(path);
    return fd;
}

static uint64_t next_due_ns(void)
{
    uint64_t next = UINT64_MAX;
    for (int i = 0; i < host_count; i++)
        if (hosts[i].head != hosts[i].tail) {
            uint64_t due = hosts[i].ring[hosts[i].head % PACKETS_MAX].due_ns;
            next = due < next ? due : next;
        }
    return next;
}

static void wait_for_work(struct pollfd *polled, uint64_t now)
{
    uint64_t due = next_due_ns();
    struct timespec patience = {.tv_sec = 3600};
    if (due != UINT64_MAX) {
        uint64_t wait = due > now ? due - now : 0;
        wait = wait < TICK_NS ? TICK_NS : wait; /* gather what is due in the same tick */
        patience.tv_sec = wait / SECOND_NS;
        patience.tv_nsec = wait % SECOND_NS;
    }
    if (ppoll(polled, host_count + 1, &patience, NULL) < 0 && errno != EINTR)
        die("ppoll");
}

int main(int argc, char **argv)
{
    struct pollfd polled[HOSTS_MAX + 1];
    if (argc < 4) {
        fprintf(stderr, "usage: relay SOCKET SEED NAME=NETNS=ADDRESS...\n");
        return 2;
    }
    prctl(PR_SET_TIMERSLACK, 1000);
    setpriority(PRIO_PROCESS, 0, -15); /* a link does not get slower because the hosts at its ends are busy */
    for (int i = 3; i < argc; i++)
        add_host(argv[i], strtoull(argv[2], NULL, 10));
    int listener = listen_at(argv[1]);
    for (int i = 0; i < host_count; i++)
        polled[i] = (struct pollfd){.fd = hosts[i].fd, .events = POLLIN};
    polled[host_count] = (struct pollfd){.fd = listener, .events = POLLIN};
    puts("ready");
    fclose(stdout);
    for (;;) {
        wait_for_work(polled, now_ns());
        uint64_t now = now_ns();
        for (int i = 0; i < host_count; i++)
            receive(&hosts[i], now);
        for (int i = 0; i < host_count; i++)
            deliver(&hosts[i], now_ns());
        struct pollfd *asking = &polled[host_count]; /* the listener, or the one client that may speak now */
        if (asking->revents && asking->fd == listener) {
            asking->fd = admit(listener);
        } else if (asking->revents) {
            serve(asking->fd);
            asking->fd = listener;
        }
    }
}
