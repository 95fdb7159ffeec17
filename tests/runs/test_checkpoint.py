"""What the storage library says of writes that failed is kept off the terminal; what others say is not."""

import logging
import sys
import warnings

from diffux.runs import checkpoint


def record(error):
    said = "Future exception was never retrieved"
    return logging.LogRecord("asyncio", logging.ERROR, "", 0, said, (), (type(error), error, None))


def test_only_the_storage_librarys_own_words_are_kept_off(tmp_path):
    hook = sys.unraisablehook
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with checkpoint.Checkpoints(tmp_path):
            keep = logging.getLogger("asyncio").filter
            assert keep(record(ValueError("of a user's own")))
            for said in ('Error opening "zarr" driver [tensorstore_spec=\'{"driver":"ocdbt"}\']',
                         'Error writing "opt_state.0" in OCDBT database: No space left on device'):  # fmt: skip
                assert not keep(record(ValueError(f"RESOURCE_EXHAUSTED: {said}")))
            for name in ("async_serialize_from_host.<locals>.write_fragment", "mine"):
                warnings.warn(f"coroutine '{name}' was never awaited", RuntimeWarning, stacklevel=1)
    assert [str(one.message) for one in warned if one.category is RuntimeWarning] == ["coroutine 'mine' was never awaited"]
    assert sys.unraisablehook is hook
