"""CLIP score: cosine laws, and features as the model itself gives them."""

from string import ascii_lowercase

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from safegen.errors import SafegenError
from safegen.models.clip_features import ImageNormalisation, image_features, text_features
from safegen.statistics.cosine import cosine_similarities

HALF = ImageNormalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 16))
def test_cosines_are_bounded_and_do_not_feel_scale(seed: int, count: int, dimensions: int) -> None:
    rng = np.random.default_rng(seed)
    images, texts = rng.normal(size=(2, count, dimensions))
    cosines = cosine_similarities(images, texts)
    assert (np.abs(cosines) <= 1).all()
    scale = rng.uniform(0.1, 10, size=(count, 1))
    np.testing.assert_allclose(cosine_similarities(images * scale, texts), cosines, atol=1e-12)


def test_it_is_torchs_cosine() -> None:
    images, texts = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cosine_similarity(images, texts).numpy()
    np.testing.assert_allclose(cosine_similarities(images, texts), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        (np.ones((2, 3)), np.ones((3, 3)), "one image and one text"),
        (np.ones((0, 3)), np.ones((0, 3)), "one image and one text"),
        (np.zeros((2, 3)), np.ones((2, 3)), "all zero"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), "finite"),
    ],
)
def test_bad_features_are_refused(images: np.ndarray, texts: np.ndarray, message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        cosine_similarities(images, texts)


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    tokens = [*ascii_lowercase, *(f"{c}</w>" for c in ascii_lowercase)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def model(tokenizer: CLIPTokenizer) -> CLIPModel:
    torch.manual_seed(0)
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    shared |= {"num_attention_heads": 2, "projection_dim": 8}
    text = shared | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 12,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = shared | {"image_size": 16, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()


def pictures(count: int, side: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, size=(count, side, side, 3), dtype=np.uint8))


def resized(picture: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


@torch.no_grad()
def test_features_give_the_models_own_similarity(
    model: CLIPModel, tokenizer: CLIPTokenizer
) -> None:
    images, texts = pictures(3, 16), ["a cat", "dog on a hill", "b"]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    logits = model(pixel_values=pixels, **tokens).logits_per_image / model.logit_scale.exp()
    got = cosine_similarities(
        image_features(model, images, HALF), text_features(model, tokenizer, texts)
    )
    np.testing.assert_allclose(got, logits.diagonal().numpy(), atol=1e-5)


def test_the_batch_size_does_not_matter(model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    images, texts = pictures(5, 16), list("abcde")
    for whole, pieces in [
        (image_features(model, images, HALF), image_features(model, images, HALF, batch=2)),
        (text_features(model, tokenizer, texts), text_features(model, tokenizer, texts, batch=2)),
    ]:
        np.testing.assert_allclose(whole, pieces, atol=1e-5)


def test_larger_pictures_are_resized_as_pillow_does(model: CLIPModel) -> None:
    large = [resized(picture, 40) for picture in pictures(2, 5)]
    small = [resized(picture, 16) for picture in large]
    got, expected = image_features(model, large, HALF), image_features(model, small, HALF)
    np.testing.assert_allclose(got, expected, atol=0.01 * np.abs(expected).max())


def test_long_texts_are_cut_at_the_context(model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    features = text_features(model, tokenizer, ["cat " * 50])
    assert features.shape == (1, 8)
    assert np.isfinite(features).all()


def test_a_deviation_of_zero_is_refused() -> None:
    with pytest.raises(SafegenError, match="positive"):
        ImageNormalisation((0.5, 0.5, 0.5), (0.5, 0.0, 0.5))
