"""The judge of histories is judged first."""

from tests.state.histories import Act, Read, anomalies

ACTS = [Act("x", 0, 1, 1), Act("y", 0.5, 2, 2), Act("z", 3, 4, 3), Act("lost", 3, 9, 0)]
STATE = {"x": 1, "y": 2, "z": 3}


def test_a_sound_history_passes() -> None:
    assert anomalies(ACTS, [Read(2.5, 2.6, 2), Read(3.5, 3.6, 2), Read(3.5, 3.6, 3)], [STATE, STATE]) == []
    assert anomalies(ACTS, [], [{**STATE, "lost": 4}]) == []


def test_every_kind_of_anomaly_is_found() -> None:
    assert anomalies([Act("x", 0, 1, 2), Act("y", 3, 4, 1)], [], [])
    assert anomalies([Act("x", 0, 1, 1), Act("y", 0, 1, 1)], [], [])
    assert anomalies(ACTS, [Read(2.5, 2.6, 1)], [])
    assert anomalies(ACTS, [Read(2.5, 2.6, 3)], [])
    assert anomalies(ACTS, [], [{"x": 1, "y": 2}])
    assert anomalies(ACTS, [], [STATE, {**STATE, "lost": 4}])
