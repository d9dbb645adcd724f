"""The benchmark suites, one module each, found by `bench.frame`.

Modules:
    acp: suite `acp`
    amst: suite `amst`
    ass: ASS
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
    replicas: Raft replicas and members of an etcd, each in a process of its own, for measurements and tests
    restarts: suite `restarts`
    soak: suite `soak`
    sync: cases `sync` of the suite `ass`, large objects to several hosts
    watch: suite `watch`
"""
