"""The benchmark suites, one module each, found by `bench.frame`.

Modules:
    acp: suite `acp`
    amst: suite `amst`
    ass: ASS
    cluster: several replicas, each in a process of its own on a loopback address, for measurements and tests
    contend: suite `contend`
    cuts: suite `cuts`
    hde: suite `hde`
    itp: suite `itp`
    itp_accuracy: accuracy suites of `itp`
    known: suite `known`
    live: suite `live`
    matrix: suite `matrix`
    paths: suite `paths`
    pba: suite `pba`
    pba_accuracy: accuracy of each forecaster, on synthetic classes of series and on traces that the operator has
    pba_cost: cost of forecasting
    pba_sharing: allocator in virtual time
    plane: suite `plane`
    predict: suite `predict`
    replica: one replica in a process of its own, told what to do by lines of JSON
    restarts: suite `restarts`
    soak: suite `soak`
    sync: cases `sync` of the suite `ass`, large objects to several hosts
    watch: suite `watch`
"""
