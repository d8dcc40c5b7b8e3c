"""The metrics of the paper's table against closed forms, other libraries and other code; their networks are random."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import CLIPImageProcessorPil

from benchmarks.paper_table.metrics import networks, random_networks
from benchmarks.paper_table.metrics.clip_score import ClipScore
from benchmarks.paper_table.metrics.frechet import Frechet
from benchmarks.paper_table.metrics.image_reward import ImageReward
from benchmarks.paper_table.metrics.views import bytes_of, centre, clip_input, whole

pytestmark = pytest.mark.slow  # runs networks of the paper's size

CPU = torch.device("cpu")
PROMPTS = ["a small red circle", "a large blue square on a white background", "green " * 200]


def noise(width: int, height: int, seed: int = 0) -> Any:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def ramp(width: int, height: int) -> Any:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 3, y * 5, (x + y) * 2], -1).astype(np.uint8))


class FirstPixel(nn.Module):
    """Features whose Gaussian the test chooses: the first two pixels' red."""

    num_features = 2

    def forward(self, images: Any) -> Any:
        return images[:, 0, 0, :2].double()


def images_of(values: Any) -> list[Any]:
    pixels = np.zeros((len(values), 4, 4, 3), dtype=np.uint8)
    pixels[:, 0, :2, 0] = values
    return [Image.fromarray(each) for each in pixels]


def test_the_distance_of_two_gaussians_is_the_closed_form() -> None:
    draw = np.random.default_rng(0).normal
    sets = [np.clip(draw(mean, spread, (400, 2)), 0, 255).round() for mean, spread in ((100, 9), (130, 20))]
    sets[1][:, 1] = (sets[1][:, 0] / 2).round()  # not diagonal
    metric = Frechet(FirstPixel(), CPU)
    metric.add_reference(images_of(sets[0]))
    metric.add(images_of(sets[1]))
    means, covariances = [each.mean(0) for each in sets], [np.cov(each.T) for each in sets]
    # tr √(AB) of 2x2 matrices: (tr √M)² = tr M + 2 √det M
    product = covariances[0] @ covariances[1]
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(max(np.linalg.det(product), 0)))
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1]) - 2 * root
    assert metric.take() == pytest.approx(expected, rel=1e-6)


def test_a_set_lies_no_distance_from_itself_and_the_reference_outlives_a_reading() -> None:
    ours, other = [noise(40, 40, i) for i in range(24)], [noise(40, 40, 100 + i) for i in range(24)]
    metric = Frechet(random_networks.Features(), CPU)
    metric.add_reference(ours)
    metric.add(other)
    far = metric.take()
    metric.add(ours[:10])
    metric.add(ours[10:])
    near = metric.take()
    assert abs(near) < 1e-6 < far
    metric.add(other)
    assert metric.take() == pytest.approx(far, rel=1e-9)


@pytest.mark.parametrize(("width", "height", "left", "top"), [(9, 7, 2, 1), (8, 5, 1, 0), (5, 5, 0, 0)])
def test_a_patch_is_the_middle_unscaled(width: int, height: int, left: int, top: int) -> None:
    image = noise(width, height)
    assert np.array_equal(np.asarray(centre(image, 5)), np.asarray(image)[top : top + 5, left : left + 5])


def test_a_patch_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="6 px does not fit into 9x5"):
        centre(noise(9, 5), 6)


def test_the_whole_is_the_middle_square_scaled() -> None:
    image = noise(40, 30)
    assert whole(image).size == (299, 299)
    assert np.array_equal(np.asarray(whole(image)), np.asarray(whole(image.crop((5, 0, 35, 30)))))
    shape = bytes_of([whole(image), whole(noise(10, 80))]).shape
    assert shape == (2, 3, 299, 299)


@pytest.mark.parametrize("size", [(70, 50), (50, 71), (64, 64), (20, 31)])
def test_clip_is_shown_what_transformers_shows_it(size: tuple[int, int]) -> None:
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    shown = theirs(ramp(*size), return_tensors="pt").pixel_values
    assert (clip_input([ramp(*size)], 32) - shown).abs().max() < 1e-5


def test_the_clip_score_is_that_of_torchmetrics() -> None:
    model, words = random_networks.clip(), random_networks.tokenizer()
    images = [noise(48, 40, 5), ramp(70, 50), noise(33, 90, 6)]

    class TensorClip:
        """torchmetrics 1.9 expects what transformers 4 returned."""

        config = model.config

        def to(self, _: Any) -> Any:
            return self

        def get_image_features(self, pixels: Any) -> Any:
            return model.get_image_features(pixel_values=pixels).pooler_output

        def get_text_features(self, ids: Any, mask: Any) -> Any:
            return model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output

    def processor(images: Any = None, text: str | None = None, **options: Any) -> Any:
        if images is None:
            return words(text, truncation=True, max_length=77, **options)
        shown = [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in images]
        return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)(shown, return_tensors="pt")

    metric = importlib.import_module("torchmetrics.multimodal").CLIPScore(lambda: (TensorClip(), processor))
    expected = []
    for image, prompt in zip(images, PROMPTS, strict=True):
        expected.append(float(metric(bytes_of([image])[0], prompt)))
        metric.reset()
    assert max(expected) > 1
    assert ClipScore(model, words)(images, PROMPTS) == pytest.approx(expected, abs=1e-3)


def golden_state() -> dict[str, Any]:
    """With what the published checkpoint holds beyond the network."""
    unused = {f"blip.{name}_proj.weight": torch.zeros(8, 64) for name in ("vision", "text")}
    positions = {"blip.text_encoder.embeddings.position_ids": torch.arange(40)[None]}
    return {**random_networks.image_reward_state(50), **unused, **positions}


def test_image_reward_is_that_of_its_own_package() -> None:
    """The expected scores are those of image-reward 1.5's code on these very tensors, with transformers 4.30.2."""
    score = ImageReward(golden_state(), None)
    ids = torch.tensor([[1, 7, 8, 9, 2, 0, 0], [1, 30, 31, 32, 33, 34, 2]])
    ids = nn.functional.pad(ids, (0, 35 - ids.shape[1]))
    found = score.of_tokens([ramp(70, 50)] * 2, ids, (ids > 0).long())
    assert found == pytest.approx([19.19159507751465, 32.198116302490234], rel=1e-5)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"blip.visual_encoder.blocks.1.norm1.bias": None}, "norm1.bias"),
        ({"blip.visual_encoder.blocks.0.norm3.bias": torch.zeros(128)}, "norm3"),
        ({"reward.weight": torch.zeros(1)}, "no reward.weight"),
    ],
)
def test_a_checkpoint_of_other_parts_is_refused(broken: dict[str, Any], said: str) -> None:
    state = {name: tensor for name, tensor in {**golden_state(), **broken}.items() if tensor is not None}
    with pytest.raises(ValueError, match=said):
        ImageReward(state, None)


def test_torch_fidelitys_inception_is_one_for_the_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its layout, with the random weights of its start."""
    pytest.importorskip("torch_fidelity", reason="of the extra `paper`, which is not installed")
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
    network = networks.inception()
    images = [whole(noise(60, 40, i)) for i in range(3)]
    assert network(bytes_of(images)).shape == (3, network.num_features)
    metric = Frechet(network, CPU)
    metric.add_reference(images)
    metric.add(images[:2])
    assert metric.take() > 0
