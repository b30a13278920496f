import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from latentplan.encoding.tokenizers import (
    SPECIAL_TOKENS,
    add_special_tokens,
    resize_embeddings,
    train_byte_level_bpe,
    train_word_level,
)


def grown(texts, *, tied=False, spare_rows=0):
    tokenizer = train_word_level(texts)
    known = len(tokenizer)
    config = LlamaConfig(
        vocab_size=known + spare_rows,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=tied,
    )
    backbone = LlamaForCausalLM(config)
    before = [backbone.get_input_embeddings().weight.clone(), backbone.get_output_embeddings().weight.clone()]
    add_special_tokens(tokenizer)
    resize_embeddings(backbone, tokenizer)
    after = [backbone.get_input_embeddings().weight, backbone.get_output_embeddings().weight]
    return tokenizer, known, before, after


@pytest.mark.parametrize("tied", [False, True])
def test_new_tokens_start_as_the_equation_marker(tied):
    tokenizer, known, before, after = grown(["<<1+2=3>> a b"], tied=tied)
    marker = tokenizer.convert_tokens_to_ids("<<")
    new = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    for old, table in zip(before, after, strict=True):
        assert torch.equal(table[:known], old[:known])
        assert torch.equal(table[new], old[marker].expand(3, -1))
    assert (after[0] is after[1]) == tied


def test_new_tokens_start_as_the_mean_where_the_marker_is_not_one_token():
    tokenizer = train_byte_level_bpe(["a b c"], vocab_size=300)
    known = len(tokenizer)
    assert len(tokenizer.encode("<<", add_special_tokens=False)) == 2
    backbone = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=known,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
        )
    )
    mean = backbone.get_input_embeddings().weight.mean(dim=0)
    add_special_tokens(tokenizer)
    resize_embeddings(backbone, tokenizer)
    new = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    torch.testing.assert_close(backbone.get_input_embeddings().weight[new], mean.expand(3, -1))


def test_a_table_with_spare_rows_is_not_shrunk_and_the_spare_rows_in_use_are_initialised():
    tokenizer, known, before, after = grown(["<<1+2=3>> a b"], spare_rows=10)
    assert after[0].shape[0] == known + 10
    marker = tokenizer.convert_tokens_to_ids("<<")
    assert torch.equal(after[0][known : known + 3], before[0][marker].expand(3, -1))
    assert torch.equal(after[0][known + 3 :], before[0][known + 3 :])
