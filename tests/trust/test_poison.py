import pytest

from skylift.core.errors import TrustError
from skylift.testkit.trustlab import Lab


def test_x(lab: Lab) -> None:
    rel = lab.released("1.0.0")
    a, b = lab.enroll("dev-a"), lab.enroll("dev-b")
    a.order(rel)
    assert a.verify() is not None
    for attempt in range(5):
        b.order(rel, attempt=attempt)
    assert b.verify() is not None
    a.lies = {k: v for k, v in b.recorded.items() if k[0] == "director"}
    with pytest.raises(TrustError) as e:
        a.verify()
    print(e.value.code, e.value)
    a.lies = {}
    print(a.verify())
