"""Small tokenizers with chat templates: like Llama's, like Qwen's, and ChatML over pieces as SentencePiece makes them.

Llama's and Qwen's templates are those that TRL brings, with its variants that mark what the assistant generates.
"""

from functools import cache
from pathlib import Path

import torch
import trl
from tokenizers import ByteLevelBPETokenizer, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tests.conftest import SENTENCES

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TIGHT = (  # no white space where the answer begins
    "{% for message in messages %}<|im_start|>{{ message['role'] }}: {{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
)
MARKED_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZäöüß.,:;!?<>/|_[]▁\n"


def of_trl(name):
    """A template that TRL brings."""
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text("utf-8")


def with_chats(path, folder, template=CHATML):
    """The model with the control tokens of chats and this template, in a folder of its own."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def byte_level(specials, **names):
    """A byte-level BPE as Llama 3 and Qwen have one."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=320, special_tokens=list(specials), show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, additional_special_tokens=list(specials), name_or_path="a-model", **names
    )


def llama(template):
    """It puts its beginning-of-text token before every text, which the template does too."""
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|end_of_text|>"}
    tokenizer = byte_level([*names.values(), "<|start_header_id|>", "<|end_header_id|>"], **names)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = template
    return tokenizer


def qwen(template):
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = byte_level([*names.values(), "<|im_start|>"], **names)
    tokenizer.chat_template = template
    return tokenizer


def pieces(template):
    """A Unigram vocabulary: its control tokens are pieces like any other, and a text begins with a space."""
    names = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    words = ["▁a", "▁the", "▁is", "er", "in", "assistant", "user", "system", "<|", "|>", "im", "end"]
    vocab = [*((name, 0.0) for name in names), *((word, -5.0) for word in words), *((each, -9.0) for each in LETTERS)]
    backend = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=False))
    metaspace = {"replacement": "▁", "prepend_scheme": "first"}
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(**metaspace), decoders.Metaspace(**metaspace)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        name_or_path="a-model",
    )
    tokenizer.chat_template = template
    return tokenizer


@cache
def chatting(kind):
    """A tokenizer by the name of its kind."""
    return {
        "llama": lambda: llama(of_trl("llama3")),
        "llama, marked": lambda: llama(of_trl("llama3_training")),
        "llama, dated": lambda: llama(of_trl("llama3_2")),
        "qwen": lambda: qwen(of_trl("qwen2_5")),
        "qwen, marked": lambda: qwen(of_trl("qwen2_5_training")),
        "qwen, thinking": lambda: qwen(of_trl("qwen3")),
        "chatml": lambda: pieces(CHATML),
        "chatml, marked": lambda: pieces(MARKED_CHATML),
    }[kind]()


MARKED = ("llama, marked", "qwen, marked", "chatml, marked")
UNMARKED = ("llama", "qwen", "chatml")


def messages(*said):
    """A conversation of (role, text) as a row of data has it."""
    return [{"role": role, "content": content} for role, content in said]


QUESTION, ANSWER = ("user", "What is the opposite of hot?"), ("assistant", "The opposite of hot is cold.")
CONVERSATIONS = {
    "one turn": messages(QUESTION, ANSWER),
    "two turns": messages(QUESTION, ANSWER, ("user", "Name a fruit."), ("assistant", "An apple.\nOr a cherry!")),
    "a system turn": messages(("system", "Be brief."), QUESTION, ANSWER, ("user", "And?"), ("assistant", "No.")),
    "an empty system turn": messages(("system", ""), QUESTION, ANSWER),
    "an empty answer": messages(QUESTION, ("assistant", ""), ("user", "Well?"), ("assistant", "Cold, of course.")),
    "other letters": messages(("user", "Größe?"), ("assistant", "Süß ist: äß"), QUESTION, ANSWER),
}
