"""The data plane: one process a migration and side, between QEMU's sockets and the channels to the peer.

    worker            the process: takes its sockets from the agent, runs one side, reports
    source, destination, session     the two sides and their common part
    source_reader, return_reader, decode_pipeline   QEMU's bytes, cut and encoded; their answers; rebuilt and written
    connection, qemu_socket                         one connection of QEMU, and its socket
    relay             plain relaying of a migration that passes through
    direct            a connection's way past the link, where that is outrun
    flow_control, pipeline_monitor, worker_threads, buffers, malloc   limits, measurements and threads of the pipeline
    process_pool      warm processes, held ready by the agent
    known             the page store in a session: pages stated, named and kept
    recording         recordings of a stream, and their replay

A crash here costs one migration; the control plane shares no interpreter with it.
"""
