import numpy as np
import numpy.typing as npt

def find(
    text: bytes, place: int, ids: npt.NDArray[np.int64], /
) -> tuple[bytes, int, int, bool]: ...
