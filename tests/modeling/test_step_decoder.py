import pytest
import torch


@pytest.fixture(params=["llama", "gpt2"])
def decoder(request, make_system):
    return make_system("atp_latent", family=request.param).step_decoder.eval()


def greedy(decoder, latents, length):
    """The most probable token after each prefix, by running `forward` on the whole text again and again."""
    eos, pad = decoder.config.eos_token_id, decoder.config.pad_token_id
    written = torch.full((latents.shape[0], length), pad)
    with torch.no_grad():
        for position in range(length):
            tokens = decoder(latents, written[:, : position + 1])[:, position].argmax(dim=-1)
            ended = (written[:, :position] == eos).any(dim=1)
            written[:, position] = torch.where(ended, pad, tokens)
    return written


def test_decoding_is_the_greedy_path_of_forward(decoder):
    torch.manual_seed(0)
    latents = torch.randn(16, 2, 32)
    decoded = decoder.decode(latents, max_new_tokens=12)
    assert torch.equal(decoded, greedy(decoder, latents, decoded.shape[1]))
    assert decoded.unique(dim=0).shape[0] > 1


def test_nothing_but_padding_follows_the_end(decoder):
    eos, pad = decoder.config.eos_token_id, decoder.config.pad_token_id
    token = int(decoder.decode(torch.randn(1, 2, 32), max_new_tokens=1))
    decoder.config.eos_token_id = token  # What it writes first is now the end.
    torch.manual_seed(1)
    latents = torch.randn(40, 2, 32)
    decoded = decoder.decode(latents, max_new_tokens=8)
    decoder.config.eos_token_id = eos
    ended = 0
    for row in decoded.tolist():
        if token in row:
            ended += 1
            assert set(row[row.index(token) + 1 :]) <= {pad}
    assert ended > 0
    # When every row has ended there is nothing more to write.
    decoder.config.eos_token_id = token
    only = latents[(decoded[:, 0] == token).nonzero()[:, 0]]
    if len(only):
        assert decoder.decode(only, max_new_tokens=8).shape[1] == 1


def test_a_step_s_text_does_not_depend_on_the_others(decoder):
    torch.manual_seed(0)
    latents = torch.randn(6, 2, 32)
    together = decoder.decode(latents, max_new_tokens=7)
    for row in range(6):
        alone = decoder.decode(latents[row : row + 1], max_new_tokens=7)
        assert torch.equal(alone[0], together[row, : alone.shape[1]])


def test_logits_belong_to_the_token_they_predict(decoder):
    """The first token is predicted from the latents alone, each later one from those before it."""
    torch.manual_seed(0)
    latents, ids = torch.randn(3, 2, 32), torch.randint(3, 20, (3, 5))
    with torch.no_grad():
        logits = decoder(latents, ids)
        assert logits.shape == (3, 5, decoder.backbone.config.vocab_size)
        other = ids.clone()
        other[:, 2] += 1
        changed = decoder(latents, other)
    torch.testing.assert_close(changed[:, :3], logits[:, :3])
    assert not torch.allclose(changed[:, 3], logits[:, 3])


def test_no_steps_and_no_tokens_are_possible(decoder):
    assert decoder.decode(torch.randn(0, 2, 32)).shape[0] == 0
    assert decoder.decode(torch.randn(3, 2, 32), max_new_tokens=0).shape == (3, 0)


def test_any_of_several_ends_ends_a_step(decoder):
    """A configuration may list them, as instruct models do."""
    torch.manual_seed(1)
    latents = torch.randn(40, 2, 32)
    first, second = decoder.decode(latents, max_new_tokens=1)[:2, 0].tolist()
    decoder.config.eos_token_id = [first, second]
    decoded = decoder.decode(latents, max_new_tokens=8)
    for token in (first, second):
        rows = decoded[decoded[:, 0] == token]
        assert len(rows)
        assert bool((rows[:, 1:] == decoder.config.pad_token_id).all())
