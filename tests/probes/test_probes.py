"""Five systems of strangers: each is a few files outside the package, and no line of the package knows of them."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from diffux import data, listing, training
from diffux.cli import main
from diffux.keys import sample_keys
from diffux.objectives import elbo
from diffux.systems import denoiser

pytestmark = pytest.mark.usefixtures("quick")

FILES = pathlib.Path(__file__).parent


def use(*names):
    return [word for name in names for word in ("--use", str(FILES / f"{name}.py"))]


def write(path, **sections):
    """A config file of these sections."""
    path.write_text(f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({sections!r})\n")
    return str(path)


def rows(workdir, name):
    return [row[name] for row in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()) if name in row]


def training_of(steps, **more):
    return {"steps": steps, "log_every": steps // 4, "checkpoint_every": steps, "eval_every": steps // 2, "sample_every": 0, **more}


@pytest.mark.full
def test_moving_digits_are_trained_and_drawn(tmp_path, monkeypatch):
    parts = use("moving_digits", "video_ddpm")
    videos = {"name": "moving_digits", "batch_size": 32}
    config = write(tmp_path / "config.py", system={"name": "video_ddpm"}, data=videos,
                   optimizer={"learning_rate": 3e-3}, training=training_of(40),
                   sample={"n": 4, "steps": 5, "solver": "ddim"})  # fmt: skip
    run = tmp_path / "run"
    assert main(["train", "--config", config, "--workdir", str(run), *parts]) == 0
    losses = rows(run, "loss")
    assert losses[-1] < 0.8 * losses[0]
    out, film = tmp_path / "videos.npz", tmp_path / "videos.gif"
    assert main(["sample", "--workdir", str(run), "--n", "6", "--out", str(out), "--out", str(film), *parts]) == 0
    assert np.load(out)["videos"].shape == (6, 4, 12, 12, 1)
    assert Image.open(film).n_frames == 4
    assert Image.open(run / "samples.png").size[0] > 4 * 12  # four frames side by side
    # the folder's word for the files that it was made with imports nothing: they must be named again
    assert sorted(json.loads((run / "parts.json").read_text())["use"]) == ["moving_digits.py", "video_ddpm.py"]
    monkeypatch.setattr(listing, "USED", {})
    with pytest.raises(training.UserError, match=r"made with parts of moving_digits\.py: name that file again, --use"):
        training.load(run)


def exact_bound(laws, alphas):
    """The bound, in bits a token, of the chain with survivals `alphas` and the model that knows p(x_0 | x_t) token by token.

    No model whose tokens are drawn independently at each step is better; all words are enumerated, in float64.
    """
    faces, throws = len(laws), laws.ndim
    words = np.stack(np.unravel_index(np.arange(laws.size), laws.shape), axis=-1)
    law, eye = laws.ravel(), np.eye(faces)

    def kept(survival):
        return survival * eye + (1 - survival) / faces  # [from, to]

    total = 0.0
    for step, alpha in enumerate(alphas):
        before = alphas[step - 1] if step else 1.0
        each = [kept(alpha)[words[:, None, i], words[None, :, i]] for i in range(throws)]
        noised = np.prod(each, axis=0) * law[:, None]  # p(x0, xt)
        for i in range(throws):
            known = np.stack([noised[words[:, i] == k].sum(0) for k in range(faces)], axis=-1)
            known /= known.sum(-1, keepdims=True)  # p(x0_i | xt)
            # q(xs_i | xt_i, x0_i), [x0, xt, xs]
            posterior = kept(before)[:, None, :] * kept(alpha / before).T[None]
            posterior /= posterior.sum(-1, keepdims=True)
            model = np.einsum("wk,kws->ws", known, posterior[:, words[:, i]])
            true = posterior[words[:, None, i], words[None, :, i]]
            ratio = np.log2(np.where(true > 0, true, 1) / np.where(true > 0, model[None], 1))
            total += np.sum(noised * np.sum(true * ratio, axis=-1))
    return total / throws


def test_the_exact_bound_of_independent_tokens_is_their_entropy():
    p = np.array([0.5, 0.25, 0.15, 0.1])
    found = exact_bound(np.einsum("i,j->ij", p, p), 1 - np.arange(1, 21) / 20)
    assert abs(found + np.sum(p * np.log2(p))) < 1e-12


@pytest.mark.full
def test_tokens_reach_the_exact_bound_of_their_law(tmp_path):
    listing.use([FILES / "loaded_dice.py"])
    import loaded_dice

    config = write(tmp_path / "config.py", system={"name": "uniform_tokens"}, data={"name": "loaded_dice", "batch_size": 256},
                   optimizer={"learning_rate": 5e-3, "schedule": "cosine"}, ema={"decay": 0.99},
                   training=training_of(600), sample={"n": 8})  # fmt: skip
    run, parts = tmp_path / "run", use("loaded_dice", "uniform_tokens")
    assert main(["train", "--config", config, "--workdir", str(run), *parts]) == 0
    loaded = training.load(run)
    words = data.arrays(data.load("loaded_dice", split="test"))["tokens"]
    objective, laws = elbo(loaded.system.process, loaded.system.steps), loaded_dice.laws()
    bound = np.asarray(objective.bound(jax.random.key(0), denoiser(loaded.system, loaded.variables), words).total)
    alphas = np.asarray(loaded.system.process.schedule(np.arange(1, 21) / 20).alpha, np.float64)
    best, spread = exact_bound(laws, alphas), bound.std() / np.sqrt(len(bound))
    assert best - 3 * spread < bound.mean() < best + 3 * spread + 0.03
    drawn = np.asarray(loaded.generate(sample_keys(0, 0, 4000)).x)
    found = np.bincount(np.ravel_multi_index(drawn.T, laws.shape), minlength=64) / len(drawn)
    by_chance = np.abs(np.bincount(np.ravel_multi_index(words.T, laws.shape), minlength=64) / len(words) - laws.ravel()).sum() / 2
    assert np.abs(found - laws.ravel()).sum() / 2 < 2 * by_chance + 0.03
    text = tmp_path / "words.txt"
    assert main(["sample", "--workdir", str(run), "--n", "5", "--out", str(text), *parts]) == 0
    assert len(text.read_text().split()) == 5 and set(text.read_text()) <= set("1234\n")


@pytest.mark.slow
def test_super_resolution_learns_from_pairs_and_leaves_out_what_is_masked(tmp_path):
    """The damaged column is white in every image, and the loss that leaves it out never teaches that."""
    config = write(tmp_path / "config.py", system={"name": "enlarging"}, data={"name": "pairs", "batch_size": 64, "flip": True},
                   optimizer={"learning_rate": 5e-3}, ema={"decay": 0.95}, training=training_of(200), sample={"n": 8})  # fmt: skip
    run, parts = tmp_path / "run", use("pairs", "enlarging")
    assert main(["train", "--config", config, "--workdir", str(run), *parts]) == 0
    out = tmp_path / "large.npz"
    assert main(["sample", "--workdir", str(run), "--n", "32", "--steps", "20", "--out", str(out), *parts]) == 0
    drawn, held_out = np.load(out)["images"], data.arrays(data.load("pairs", split="test"), 32)
    pooled = drawn.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4))[:, :, 1:]
    low = held_out["low"][:, :, 1:] / 255
    apart = np.abs(pooled - low).mean()
    assert apart < 0.5 * np.abs(pooled - np.roll(low, 1, axis=0)).mean()  # each is large for its own small image
    assert drawn[:, :, 0].mean() < 0.8
    small = tmp_path / "small.png"
    Image.fromarray(held_out["low"][3, ..., 0]).save(small)
    assert (
        main(["sample", "--workdir", str(run), "--n", "2", "--steps", "2", "--given", f"low={small}", "--out", str(out), *parts])
        == 0
    )
    np.testing.assert_array_equal(np.load(out)["given_low"][0], held_out["low"][3])
    Image.fromarray(np.block([[held_out["low"][i + j, ..., 0] for i in range(5)] for j in range(0, 15, 5)])).save(small)
    large, words = tmp_path / "restored.png", ["--task", "restore(overlap=2)", "--model", f"model={run}", "--steps", "20"]
    assert main(["sample", *words, "--given", f"low={small}", "--out", str(large), *parts]) == 0
    found = np.asarray(Image.open(large)) / 255  # 24x40, of 12x20
    assert np.abs(found.reshape(12, 2, 20, 2).mean((1, 3)) - np.asarray(Image.open(small)) / 255).mean() < 1.5 * apart


@pytest.mark.full
def test_a_latent_model_is_built_on_another_run(tmp_path):
    parts = use("autoencoder", "latent_ddpm")
    first = write(tmp_path / "first.py", system={"name": "autoencoder"}, data={"name": "digits", "batch_size": 64},
                  optimizer={"learning_rate": 5e-3}, ema={"decay": 0.9}, training=training_of(120))  # fmt: skip
    assert main(["train", "--config", first, "--workdir", str(tmp_path / "runs" / "kl"), *parts]) == 0
    config = write(tmp_path / "config.py", system={"name": "latent_ddpm"}, data={"name": "digits", "batch_size": 64},
                   nets={"first_stage": str(tmp_path / "runs" / "kl")}, optimizer={"learning_rate": 3e-3}, ema={"decay": 0.9},
                   training=training_of(60), sample={"n": 4})  # fmt: skip
    run = tmp_path / "runs" / "latent"
    assert main(["train", "--config", config, "--workdir", str(run), *parts]) == 0
    shutil.move(tmp_path / "runs", tmp_path / "moved")  # the runs together, so that one is found beside the other
    loaded = training.load(tmp_path / "moved" / "latent")
    assert set(loaded.variables.params) == {"network"}
    kl = training.load(tmp_path / "moved" / "kl")
    same = jax.tree.map(np.array_equal, loaded.system.codec.encoder.weights, kl.variables.params["encoder"])
    assert all(jax.tree.leaves(same))
    drawn = loaded.generate(sample_keys(0, 0, 3))
    assert drawn.x.shape == (3, 8, 8, 1)
    with pytest.raises(training.UserError, match="first_stage is not at"):
        shutil.rmtree(tmp_path / "moved" / "kl")
        training.load(tmp_path / "moved" / "latent")


@pytest.mark.slow
def test_a_cascade_draws_small_ones_and_enlarges_them(tmp_path):
    parts = use("enlarging")
    small = {"name": "ddpm", "steps": 50, "channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "classes": 10}
    common = {"optimizer": {"learning_rate": 5e-3}, "training": training_of(20), "ema": {"decay": 0.9}}
    tiny = {"name": "digits", "size": 4, "batch_size": 32}
    base = write(tmp_path / "base.py", system=small, data=tiny, sample={"n": 4, "steps": 2}, **common)
    up = write(tmp_path / "up.py", system={"name": "enlarging", "mask": False}, data={"name": "digits", "batch_size": 32},
               sample={"n": 4, "steps": 2}, **common)  # fmt: skip
    for config, name in ((base, "base"), (up, "up")):
        assert main(["train", "--config", config, "--workdir", str(tmp_path / name), *parts]) == 0
    out = tmp_path / "large.npz"
    words = ["sample", "--task", "cascade", "--model", f"base={tmp_path / 'base'}", "--model", f"up={tmp_path / 'up'}"]
    assert main([*words, "--n", "6", "--steps", "3", "--label", "3", "--out", str(out), *parts]) == 0
    assert np.load(out)["images"].shape == (6, 8, 8, 1)
    assert np.load(out)["labels"].tolist() == [3] * 6
