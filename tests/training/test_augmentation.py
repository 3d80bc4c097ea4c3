import pytest
import torch

from assets.training.augmentation import augment, stored_size

STILL = {"rotation_degrees": 0.0, "scale": [1.0, 1.0], "shift": 0.0, "flip": False, "color_mixing": 0.0, "grey": 0.0}


def picture(side=72, seed=0):
    return torch.randint(0, 256, (16, 3, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_without_any_change_it_is_the_centre_crop():
    pixels = picture()
    view = augment(pixels, 64, **STILL, generator=generator())
    torch.testing.assert_close(view, pixels[:, :, 4:68, 4:68].float() / 255, atol=1e-4, rtol=0)


def test_a_flip_mirrors_some_and_only_mirrors():
    pixels = picture()
    view = augment(pixels, 64, **{**STILL, "flip": True}, generator=generator())
    centre = pixels[:, :, 4:68, 4:68].float() / 255
    kept = [torch.allclose(v, c, atol=1e-4) for v, c in zip(view, centre, strict=True)]
    mirrored = [torch.allclose(v, c.flip(-1), atol=1e-4) for v, c in zip(view, centre, strict=True)]
    assert all(k != m for k, m in zip(kept, mirrored, strict=True))
    assert any(mirrored)
    assert any(kept)


def test_zooming_in_by_two_shows_the_middle():
    pixels = torch.zeros(1, 3, 72, 72, dtype=torch.uint8)
    pixels[:, :, 24:48, 24:48] = 255  # a square of 24 pixels becomes one of 48
    view = augment(pixels, 64, **{**STILL, "scale": [2.0, 2.0]}, generator=generator())
    assert (view[0, 0] > 0.5).sum().item() == 48 * 48


def test_turning_carries_a_square_around_the_middle():
    pixels = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    pixels[:, :, 8:16, 28:36] = 255  # 20 pixels above the middle
    seen = set()
    for seed in range(40):
        view = augment(pixels, 64, **{**STILL, "rotation_degrees": 180.0}, generator=generator(seed))[0, 0]
        assert view.sum().item() == pytest.approx(64, abs=3)
        rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        row, column = (float((view * axis).sum() / view.sum()) - 31.5 for axis in (rows, columns))
        assert row**2 + column**2 == pytest.approx(20**2, rel=0.05)
        seen.add((row > 0, column > 0))
    assert len(seen) == 4


def test_full_grey_has_three_equal_channels_for_some():
    view = augment(picture(), 64, **{**STILL, "grey": 1.0}, generator=generator())
    before = picture()[:, :, 4:68, 4:68].float() / 255
    spread = (view.amax(1) - view.amin(1)).mean(dim=(1, 2)) / (before.amax(1) - before.amin(1)).mean(dim=(1, 2))
    assert (spread < 1).all()
    assert spread.min() < 0.6


def test_the_generator_alone_decides():
    strong = {"rotation_degrees": 14.0, "scale": [0.8, 1.25], "shift": 0.1, "flip": True, "color_mixing": 0.4, "grey": 0.2}
    first, second, other = (augment(picture(), 64, **strong, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1


@pytest.mark.parametrize(("size", "stored"), [(64, 72), (224, 252), (336, 378)])
def test_stored_size(size, stored):
    assert stored_size(size) == stored
