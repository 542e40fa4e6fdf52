import numpy as np
import numpy.typing as npt

def find(
    text: bytes | memoryview, kinds: bytes, place: int, ids: npt.NDArray[np.int64], /
) -> tuple[list[bytes], bytes, int, int, bool]: ...
