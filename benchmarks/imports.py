"""How long `import` takes beyond torch and transformers, in interpreters of their own that take turns."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from benchmarks.crew import worker_environment

#: What a program has already: a model. (Not the Trainer, whose import brings PEFT where PEFT is installed.)
BEFORE = """
import json, time, warnings
warnings.simplefilter("ignore")
import torch, transformers
from transformers import RobertaConfig, RobertaForSequenceClassification
config = RobertaConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=1, intermediate_size=8, vocab_size=20)
model = RobertaForSequenceClassification(config)
wall, cpu = time.perf_counter(), time.process_time()
"""
#: The names that a program uses to attach, save and load.
NAMES = {
    "unipetl": "import unipetl; unipetl.attach, unipetl.save, unipetl.load",
    "peft": "import peft; peft.get_peft_model, peft.LoraConfig, peft.PeftModel",
    "adapterhub": "import adapters; adapters.init, adapters.LoRAConfig",
}
#: The first use, since an import may be put off until then.
USE = {
    "unipetl": "unipetl.attach(model, 'lora(rank=1)')",
    "peft": "peft.get_peft_model(model, peft.LoraConfig(r=1, target_modules=['query', 'value']))",
    "adapterhub": "adapters.init(model); model.add_adapter('a', config=adapters.LoRAConfig(r=1))",
}
CLOCKS = "{'wall': time.perf_counter() - wall, 'cpu': time.process_time() - cpu}"


def program(library: str) -> str:
    return f"{BEFORE}{NAMES[library]}\nfirst = {CLOCKS}\n{USE[library]}\nprint(json.dumps([first, {CLOCKS}]))"


def imports(pythons: Mapping[str, str], rounds: int) -> list[dict[str, Any]]:
    """Return a record for each library; a first round fills the file cache."""
    records: dict[str, dict[str, Any]] = {
        library: {"part": "import", "kind": "import", "shape": "", "changes": {}, "library": library}
        | {"reference": "", "problems": {}, "facts": {}, "rounds": []}
        for library in pythons
    }
    for number in range(rounds + 1):
        for library, python in pythons.items():
            command = [python, "-c", program(library)]
            environment = os.environ | worker_environment(library, threads=1)
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                records[library]["error"] = done.stderr.strip().splitlines()[-1][:200]
            elif number:
                first, used = json.loads(done.stdout.strip().splitlines()[-1])
                records[library]["rounds"].append([("import", first), ("import and first attachment", used)])
    return list(records.values())
