"""The batched augmentation is torchvision's, film by film."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as v2

from cm2.extract.encoders.frame import Frame
from cm2.fuse.stream.augment import augmented, centre

SIDE, CROP = 64, 56


@pytest.fixture(scope="module")
def films() -> torch.Tensor:
    coarse = torch.rand(6, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    return (v2.resize(coarse, [SIDE, SIDE])[:, 0] * 255).to(torch.uint8)


def test_it_flips_turns_shifts_and_scales_as_torchvision_does(films: torch.Tensor) -> None:
    noise = torch.rand(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise[:, 0] = torch.tensor([0.2, 0.8, 0.2, 0.8, 0.1, 0.9])
    found = augmented(films, noise, CROP)
    assert found.shape == (6, CROP, CROP)
    for film, u, cut in zip(films, noise.tolist(), found, strict=True):
        image = film.unsqueeze(0)
        if u[0] < 0.5:
            image = v2.horizontal_flip(image)
        image = v2.affine(
            image,
            angle=(2 * u[1] - 1) * 45,
            translate=[round((2 * v - 1) * 0.15 * SIDE) for v in u[2:4]],
            scale=0.85 + 0.3 * u[4],
            shear=[0.0, 0.0],
        )
        expected = v2.center_crop(image, [CROP, CROP])[0].float()
        # a pixel half-way between two others may go to either
        assert (cut == expected).float().mean() > 0.995


def test_the_numbers_in_the_middle_leave_a_film_as_it_is(films: torch.Tensor) -> None:
    noise = torch.full((6, 5), 0.5)
    torch.testing.assert_close(augmented(films, noise, CROP), centre(films, CROP))


@pytest.mark.parametrize(("side", "crop"), [(256, 224), (64, 56), (33, 28), (24, 21)])
def test_the_centre_is_the_one_that_extract_cuts(side: int, crop: int) -> None:
    from PIL import Image

    film = torch.randint(0, 256, (side, side), dtype=torch.uint8)
    cut = Frame(side, (crop, crop)).cut(Image.fromarray(film.numpy()))
    assert torch.equal(centre(film.unsqueeze(0), crop)[0], torch.from_numpy(cut.copy()).float())
