"""Processes that read data: they end with the one that they read for, and begin where that can be begun again."""

import os
import runpy
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from diffux import cli
from diffux.data import DataError
from diffux.data._main_guard import check_main_guard

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

MAIN = """
import multiprocessing, time
from diffux import data
if __name__ == "__main__":
    batches = data.loader(data.load("digits"), batch_size=8, seed=0, workers=2)
    next(batches)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(60)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" if Path("/proc").is_dir() else True


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "main.py").write_text(MAIN)
    process = subprocess.Popen([sys.executable, tmp_path / "main.py"], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2 and all(map(alive, workers))
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    """In one sentence, and before any process has begun."""
    script = tmp_path / "script.py"
    script.write_text(MAIN.replace('if __name__ == "__main__":', "for _ in range(1):"))
    done = subprocess.run([sys.executable, script], text=True, capture_output=True, timeout=120)
    said = done.stderr.splitlines()
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1, done.stderr
    assert said[-1] == (
        "diffux.errors.DataError: 2 data workers are processes that run script.py again, with its line 5: put what it does below "
        '`if __name__ == "__main__":`, or take no workers'
    )


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("check(2)", "with its line 1"),
        ("def main():\n    check(2)\n\n\nmain()", "with its line 5"),
        ("import sys\nif len(sys.argv):\n    check(\n        2)", "with its line 3"),
        ('if __name__ == "__main__":\n    pass\ncheck(2)', "with its line 3"),
        ('def main():\n    check(2)\n\n\nif __name__ == "__main__":\n    main()', None),
        ('try:\n    if "__main__" == __name__:\n        check(2)\nfinally:\n    pass', None),
        ("import multiprocessing\nif multiprocessing.parent_process() is None:\n    check(2)", None),
    ],
)
def test_what_stands_below_a_guard_may_have_workers(text, refused, tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(text)
    main = types.ModuleType("__main__")
    main.__file__, main.check = str(script), check_main_guard
    monkeypatch.setitem(sys.modules, "__main__", main)
    run = lambda: exec(compile(text, script, "exec"), vars(main))  # noqa: E731
    if refused is None:
        return run()
    with pytest.raises(DataError, match=refused):
        run()
    script.unlink()
    with pytest.raises(DataError, match=r"script\.py again, which is no file"):
        run()


def test_a_prompt_and_a_package_are_never_run_again(monkeypatch):
    for about in ({}, {"__file__": "__main__.py", "__spec__": types.SimpleNamespace(name="package.__main__")}):
        main = types.ModuleType("__main__")
        vars(main).update(about, check=check_main_guard)
        monkeypatch.setitem(sys.modules, "__main__", main)
        exec(compile("check(2)", "<prompt>", "exec"), vars(main))


@pytest.mark.parametrize("door", ["train", "sample", "evaluate", "export"])
def test_the_doors_do_nothing_where_workers_run_them_again(door, monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    monkeypatch.setattr(sys, "argv", [door])
    entered = []
    monkeypatch.setattr(cli, "enter", entered.append)
    for name in ("__mp_main__", "__main__"):
        runpy.run_path(str(EXPERIMENTS / f"{door}.py"), run_name=name)
    assert entered == [[door]]
