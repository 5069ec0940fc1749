"""Models of many languages: which one the tokenizer reads and writes, and which one the decoder starts in."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from unipetl.errors import TaskError


def speak(model: PreTrainedModel, tokenizer: Any, source: str | None, target: str | None, task: str) -> None:
    """Set the languages of a tokenizer that has some, and let the model's decoder begin in the target's.

    Where the tokenizer puts the language's code behind a target (mBART), the decoder starts from it; where it puts it
    in front (mBART-50, NLLB, M2M100), it is the first token that is written. Other tokenizers are left as they are.

    Raises:
        TaskError: the tokenizer needs languages and none are named, or it has none of these codes.
    """
    if getattr(tokenizer, "src_lang", None) is None:
        return
    if source is None or target is None:
        raise TaskError(
            f"task {task!r}: this model writes many languages; name two with the options source_language and "
            "target_language, in its own codes (mBART: en_XX, ro_RO; NLLB: eng_Latn, ron_Latn)."
        )
    for code in (source, target):
        if tokenizer.convert_tokens_to_ids(code) in (None, tokenizer.unk_token_id):
            raise TaskError(
                f"task {task!r}: the tokenizer has no language {code!r}. Give source_language and target_language in "
                "its own codes (mBART: en_XX, ro_RO; NLLB: eng_Latn, ron_Latn)."
            )
    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    code_id = tokenizer.convert_tokens_to_ids(target)
    written = list(tokenizer(text_target="a")["input_ids"])
    for settings in (model.config, model.generation_config):
        if written[-1] == code_id:
            settings.decoder_start_token_id = code_id
        elif written[0] == code_id:
            settings.forced_bos_token_id = code_id
