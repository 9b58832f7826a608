from tests.integration.running import *
def test_a(bench):
    bench.at("429-once")
    ids=bench.load(job("plain", 5), job("retried", 5, fault="429-once"))
    end=bench.run(ids)
    assert end.exit_code==0
    check(bench,*ids)
def test_b(bench):
    ids=bench.load(job("plain", 5))
    print(ended(bench.drainer(ids)))
    check(bench,*ids)
