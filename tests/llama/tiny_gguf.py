"""Write a language model of half a megabyte with random weights, for a real llama.cpp server.

It generates printable random words, the same for the same seed, and stops on its own. Every
embedding has one large constant in its first dimension. The output layer gives words a positive
weight on it, and byte and control tokens a negative one.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np

TEXT = (
    "a an the one two many few old new small large red green blue quiet loud slow quick day night "
    "house garden street river mountain forest sea wind rain snow sun moon star bread water milk "
    "walks runs sings reads writes looks hears finds loses gives takes opens closes and or but "
    "because while when where under over near behind before after with without"
)
WORDS = TEXT.split()
CHARACTERS = [chr(code) for code in range(33, 127)]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DIM, LAYERS, HEADS, CONTEXT = 64, 2, 4, 4096
LIFT = 4.0
END = 2


class Token(NamedTuple):
    """An entry of the vocabulary; the model may generate only tokens with `spoken`."""

    text: str
    kind: int
    spoken: bool


def vocabulary() -> list[Token]:
    """Return the vocabulary in SentencePiece's order: control tokens, bytes, words, characters."""
    kinds = gguf.TokenType
    special = [
        Token("<unk>", kinds.UNKNOWN, False),
        Token("<s>", kinds.CONTROL, False),
        Token("</s>", kinds.CONTROL, True),
    ]
    raw = [Token(f"<0x{byte:02X}>", kinds.BYTE, False) for byte in range(256)]
    marks = [Token(mark, kinds.CONTROL, False) for mark in ("<|im_start|>", "<|im_end|>")]
    words = [Token(f"\u2581{word}", kinds.NORMAL, True) for word in WORDS]
    single = [Token(text, kinds.NORMAL, False) for text in ["\u2581", *CHARACTERS]]
    return [*special, *raw, *marks, *words, *single]


def write(path: Path, seed: int = 1) -> None:
    """Write the model to a file."""
    tokens = vocabulary()
    writer = gguf.GGUFWriter(str(path), "llama")
    _describe(writer, tokens)
    _fill(writer, tokens, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, tokens: list[Token]) -> None:
    writer.add_name("tiny-random")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * DIM)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(DIM // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.text for token in tokens])
    writer.add_token_scores([-float(rank) for rank in range(len(tokens))])
    writer.add_token_types([int(token.kind) for token in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)


def _fill(writer: gguf.GGUFWriter, tokens: list[Token], rng: np.random.Generator) -> None:
    def noise(*shape: int, scale: float) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    ones = np.ones(DIM, np.float32)
    embedding = noise(len(tokens), DIM, scale=1.0)
    embedding[:, 0] = LIFT
    writer.add_tensor("token_embd.weight", embedding)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        writer.add_tensor(f"{block}.attn_norm.weight", ones)
        writer.add_tensor(f"{block}.ffn_norm.weight", ones)
        for name in ("attn_q", "attn_k", "attn_v"):
            writer.add_tensor(f"{block}.{name}.weight", noise(DIM, DIM, scale=DIM**-0.5))
        for name in ("ffn_gate", "ffn_up"):
            writer.add_tensor(f"{block}.{name}.weight", noise(2 * DIM, DIM, scale=DIM**-0.5))
        # A block's output must not change the constant in the first dimension.
        attention = noise(DIM, DIM, scale=0.5 * DIM**-0.5)
        down = noise(DIM, 2 * DIM, scale=0.5 * DIM**-0.5)
        attention[0, :] = down[0, :] = 0.0
        writer.add_tensor(f"{block}.attn_output.weight", attention)
        writer.add_tensor(f"{block}.ffn_down.weight", down)
    writer.add_tensor("output_norm.weight", ones)
    output = noise(len(tokens), DIM, scale=0.12)
    output[:, 0] = [LIFT if token.spoken else -LIFT for token in tokens]
    writer.add_tensor("output.weight", output)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
