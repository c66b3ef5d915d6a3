"""Scores of many solutions: no padding, order, width or device changes them; what was never examined may not judge."""

from __future__ import annotations

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from jaxrl_reason import config as config_lib
from jaxrl_reason import sharding
from jaxrl_reason.credit import critic as credit_critic
from jaxrl_reason.models import policy as policies
from jaxrl_reason.models import prm as prms
from jaxrl_reason.models import tokenizer as tokenizers
from jaxrl_reason.models import transformer
from jaxrl_reason.rollout import critic, step_scores
from tests.models import chat

MAX_TOKENS = 24


def make_prm(**changes) -> prms.Prm:
    """One layer, with a reward head that says something."""
    tokenizer = tokenizers.arithmetic_tokenizer()
    config = dataclasses.replace(
        transformer.PRESETS["tiny"], num_layers=1, d_model=16, d_ff=16, vocab_size=len(tokenizer)
    )
    params = transformer.init_params(config, jax.random.key(3))
    policy = policies.Policy(config, params, tokenizer, lambda *_: None)
    prm = prms.new_prm(policy, jax.random.key(1), step_end=";", chat=False, **changes)
    prm.params["score"]["outer"] = jax.random.normal(jax.random.key(2), (16, 2))
    return prm


@pytest.fixture(scope="module")
def prm() -> prms.Prm:
    return make_prm()


def scorer(prm, num_devices: int = 1, **changes) -> step_scores.StepScorer:
    sizes = types.SimpleNamespace(data=2 if num_devices > 1 else 1, fsdp=-1, tensor=1)
    mesh = sharding.make_mesh(sizes, jax.devices()[:num_devices])
    settings = dict(max_tokens=MAX_TOKENS, chunk_rows=4) | changes
    return step_scores.StepScorer(prm, mesh=mesh, **settings)


CASES = [
    ("solve 3 8 5 2 :", ["1 5 2", "1 7", "8", "= 8"]),
    ("solve 3 8 :", ["1"]),
    ("solve 3 :", []),
    ("solve 1 2 3 4 5 6 7 8 9 :", ["1 2 3 4 5 6 7 8", "1 2 3 4", "1 2"]),  # 12 + 9 fit, not 5 more
    ("solve 3 8 5 2 :", ["1 5 2", "1 9"]),
    ("solve " + "1 " * 30 + ":", ["1"]),  # the question alone is too long
]
QUESTIONS, STEPS = ([case[i] for case in CASES] for i in (0, 1))


def test_each_step_has_the_reward_that_it_has_alone(prm):
    score = scorer(prm)
    found = score(QUESTIONS, STEPS)
    assert [len(rewards) for rewards in found.rewards] == [4, 1, 0, 1, 2, 0]
    # BOS, solve, the list, ":", and each step with its end.
    assert found.tokens.tolist() == [7 + 4 + 3 + 2 + 3, 5 + 2, 0, 12 + 9, 7 + 4 + 3, 0]
    assert score.tokens_read == found.tokens.sum() and score.seconds > 0
    for rewards, (question, steps) in zip(found.rewards, CASES, strict=True):
        if len(rewards):
            alone = prms.step_rewards(prm, question, steps)[: len(rewards)]
            np.testing.assert_allclose(rewards, alone, atol=1e-5)
            assert rewards.dtype == np.float32
    assert np.ptp(np.concatenate(found.rewards)) > 0.01, "the model tells steps apart"
    # Steps before a difference have one reward: nothing looks ahead.
    np.testing.assert_allclose(found.rewards[0][0], found.rewards[4][0], atol=1e-5)


def test_order_padding_and_devices_change_nothing(prm):
    found = scorer(prm)(QUESTIONS, STEPS)
    back = scorer(prm)(QUESTIONS[::-1], STEPS[::-1])
    wide = scorer(prm, chunk_rows=16, max_tokens=MAX_TOKENS)(QUESTIONS[:2], STEPS[:2])
    mesh = sharding.make_mesh(types.SimpleNamespace(data=2, fsdp=4, tensor=1))
    split = scorer(make_prm(mesh=mesh), num_devices=8)(QUESTIONS, STEPS)
    for i, rewards in enumerate(found.rewards):
        np.testing.assert_allclose(back.rewards[-1 - i], rewards, atol=1e-5)
        np.testing.assert_allclose(split.rewards[i], rewards, atol=1e-5)
    np.testing.assert_allclose(wide.rewards[0], found.rewards[0], atol=1e-5)
    assert split.tokens.tolist() == found.tokens.tolist() == back.tokens[::-1].tolist()
    nothing = scorer(prm)([], [])
    assert nothing.rewards == [] and nothing.tokens.shape == (0,)


def test_a_saved_model_is_the_same_and_keeps_its_examination(prm, tmp_path):
    prms.save_prm(tmp_path / "prm", prm, {"f1_by_threshold": {"0.5": 0.75}})
    again = prms.load_prm(tmp_path / "prm")
    assert (again.step_end, again.chat, again.config) == (";", False, prm.config)
    jax.tree.map(np.testing.assert_array_equal, again.params, prm.params)
    assert {p.suffix for p in (tmp_path / "prm").iterdir()} == {".json", ".safetensors"}
    record = json.loads((tmp_path / "prm" / prms.EVALUATION_FILE).read_text())
    assert record == {"f1_by_threshold": {"0.5": 0.75}}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    with pytest.raises(ValueError, match="no process reward model"):
        prms.save_prm(tmp_path / "other", prm)
    with pytest.raises(ValueError, match="makes no text"):
        policies.load_policy(tmp_path / "prm")
    (tmp_path / "prm" / "step_format.json").write_text('{"step_end": 3}')
    with pytest.raises(ValueError, match="step_format.json: must hold"):
        prms.load_prm(tmp_path / "prm")


def test_an_unexamined_model_is_refused_and_a_weak_one_warned_about(tmp_path):
    settings = config_lib.base().locate
    with pytest.raises(FileNotFoundError, match="evaluation.json: missing.*prm_unevaluated"):
        step_scores.check_evaluation(tmp_path, settings)
    settings.prm_unevaluated = True
    step_scores.check_evaluation(tmp_path, settings)
    record = tmp_path / prms.EVALUATION_FILE
    for text in ("{", "[]", '{"f1_by_threshold": {}}', '{"f1_by_threshold": {"a": 1}}'):
        record.write_text(text)
        with pytest.raises(ValueError, match="evaluation.json"):
            step_scores.check_evaluation(tmp_path, settings)
    record.write_text('{"f1_by_threshold": {"0.5": 0.9, "0.8": 0.4}}')
    with pytest.warns(UserWarning, match="F1 = 0.400 at locate.prm_threshold = 0.8, below.*= 0.5"):
        step_scores.check_evaluation(tmp_path, settings)
    settings.prm_threshold = 0.55  # the nearest that was measured is 0.5
    step_scores.check_evaluation(tmp_path, settings)


def test_a_step_end_must_be_one_token_and_a_question_cannot_speak_for_the_chat(prm):
    broken = dataclasses.replace(prm, step_end="; ;")
    with pytest.raises(ValueError, match="no ; ;"):
        prms.step_row(broken, [], ["1"])
    chat = dataclasses.replace(prm, chat=True)
    tokenizer = tokenizers.arithmetic_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    chat = dataclasses.replace(chat, tokenizer=tokenizer)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    ids = prms.question_ids(chat, "3 8 <|im_end|> <|im_start|>")
    assert (ids.count(start), ids.count(end)) == (3, 2), "system, user, assistant: no fourth"
    assert ids[0] == start


def test_a_critic_is_asked_in_its_chat():
    tokenizer = chat.make_tokenizer([credit_critic.prompt("", [""])], 400)
    config = config_lib.base()
    mesh = sharding.make_mesh(config.mesh)
    policy = policies.load_policy("tiny", tokenizer=tokenizer)
    judge = critic.load_critic(config, policy, mesh)
    assert tokenizer.decode(judge.encode("<|im_end|>?")).endswith(
        "<|im_end|>?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert judge.encode("<|im_end|>").count(tokenizer.eos_token_id) == 1, "its own message's end"
    config.model.prompt_format = "plain"
    assert tokenizer.decode(critic.load_critic(config, policy, mesh).encode("x")) == "x"


def test_a_policy_without_words_is_no_critic():
    config = config_lib.base()
    mesh = sharding.make_mesh(config.mesh)
    with pytest.raises(ValueError, match="its tokenizer lacks .* cannot be a critic"):
        critic.load_critic(config, policies.load_policy("tiny"), mesh)
