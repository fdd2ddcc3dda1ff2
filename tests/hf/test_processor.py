"""Pictures, texts and messages in the forms in which programs pass them to a processor."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    CLIPImageProcessor,
    LlamaConfig,
)

import cogvlm2_lite.hf
from cogvlm2_lite import build_prompt
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import checkpoint_folder, sample_pictures
from cogvlm2_lite.errors import ImageError, UsageError
from cogvlm2_lite.hf.__main__ import main as run_program
from cogvlm2_lite.hf.chat_template import chat_template
from cogvlm2_lite.inputs.image import open_image, pixel_values
from cogvlm2_lite.inputs.prompt import encode_prompt
from cogvlm2_lite.inputs.tokenizer import Tokenizer

DEMO = checkpoint_folder()
PICTURE = sample_pictures()[1].path
BASE64 = base64.b64encode(PICTURE.read_bytes()).decode()
QUESTION = "What is in the picture?"
CONFIG = read_config(DEMO)


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(DEMO)


def asked(processor: Any, part: Any, **settings: Any) -> Any:
    content = [part, {"type": "text", "text": QUESTION}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **settings,
    )


PARTS = {
    "path": {"type": "image", "path": str(PICTURE)},
    "Path": {"type": "image", "image": PICTURE},
    "url of a file": {"type": "image", "url": PICTURE.as_uri()},
    "path as url": {"type": "image", "url": str(PICTURE)},
    "base64": {"type": "image", "base64": BASE64},
    "wrapped, urlsafe, unpadded base64": {
        "type": "image",
        "base64": "\n".join(
            BASE64.replace("+", "-").replace("/", "_").rstrip("=")[i : i + 76]
            for i in range(0, len(BASE64), 76)
        ),
    },
    "data url": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}},
    "data url as text": {"type": "image_url", "image_url": f"DATA:image/png;base64,{BASE64}"},
    "PIL": {"type": "image", "image": Image.open(PICTURE)},
    "no type": {"image": Image.open(PICTURE)},
    "bytes": {"type": "image", "image": PICTURE.read_bytes()},
    "bare PIL": Image.open(PICTURE).convert("RGB"),
    "array": {"type": "image", "image": np.asarray(Image.open(PICTURE).convert("RGB"))},
    "tensor": {
        "type": "image",
        "image": torch.from_numpy(np.array(Image.open(PICTURE).convert("RGB"))).permute(2, 0, 1),
    },
}


@pytest.mark.parametrize("form", PARTS)
def test_a_picture_in_any_form_is_what_ask_reads(processor: Any, form: str) -> None:
    given = asked(processor, PARTS[form])
    opened = open_image(PICTURE)
    assert np.array_equal(given["pixel_values"], pixel_values(opened, CONFIG.vision))
    prompt = encode_prompt(Tokenizer.from_folder(DEMO), CONFIG, QUESTION, has_image=True)
    assert np.array_equal(given["input_ids"], prompt.input_ids)
    assert np.array_equal(given["token_type_ids"], prompt.token_type_ids)
    assert bool(given["attention_mask"].all())


def test_transparency_and_rotation_are_handled_as_in_every_command(processor: Any) -> None:
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (5, 5, 15, 15))
    file = BytesIO()
    clear.save(file, "PNG")
    given = processor(images=file.getvalue(), text="x", return_tensors="np")
    ours = pixel_values(open_image(file.getvalue()), CONFIG.vision)
    assert np.array_equal(given["pixel_values"], ours)


def test_a_picture_is_fetched_from_a_web_address(
    processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/sign.png":
            return httpx.Response(200, content=PICTURE.read_bytes())
        return httpx.Response(404)

    client = httpx.Client(transport=httpx.MockTransport(handler))
    monkeypatch.setattr("cogvlm2_lite.hf.pictures.httpx.get", client.get)
    url = "https://pictures.example/sign.png"
    assert torch.equal(
        asked(processor, {"type": "image", "url": url})["pixel_values"],
        asked(processor, PARTS["path"])["pixel_values"],
    )
    with pytest.raises(ImageError, match="404"):
        asked(processor, {"type": "image", "url": url.replace("sign", "none")})


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("no such file.png", "There is no file"),
        ("data:image/png;base64,AAA*", "base64"),
        ("QUJD" * 40, "not a picture|unknown|format|damaged"),
        (np.zeros((2, 2, 2, 2, 2)), "shape"),
        ({"a": 1}, "can't be opened|There is no|shape"),
    ],
    ids=["missing", "damaged base64", "base64 of text", "array of five axes", "dictionary"],
)
def test_what_is_no_picture_gets_a_sentence(processor: Any, picture: Any, message: str) -> None:
    with pytest.raises((ImageError, UsageError), match=message):
        processor(images=picture, text="x")


def test_a_file_address_is_decoded_once(processor: Any, tmp_path: Path) -> None:
    file = Path(shutil.copy(PICTURE, tmp_path / "a%20b 图.png"))
    given = asked(processor, {"type": "image", "url": file.as_uri()})
    assert np.array_equal(given["pixel_values"], pixel_values(open_image(PICTURE), CONFIG.vision))


# --- texts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chat", "vqa", "base"])
@pytest.mark.parametrize(
    "turns",
    [
        [("What?", None)],
        [("What's that?", "It's {a} \\ sign."), ("Why\nso?", None)],
        [("a", "b"), ("c", "d"), ("e", None)],
    ],
)
def test_messages_become_the_prompt_of_the_template(
    processor: Any, name: str, turns: list[tuple[str, str | None]]
) -> None:
    talk = []
    for question, answer in turns:
        talk.append({"role": "user", "content": [{"type": "text", "text": question}]})
        if answer is not None:
            talk.append({"role": "assistant", "content": f" {answer}"})
    history = [(question, answer) for question, answer in turns if answer is not None]
    expected = build_prompt(turns[-1][0], history, name)
    template = chat_template(CONFIG.architecture.templates[name], "<start>", "<picture>")
    for prompt in (True, False):
        text = processor.apply_chat_template(
            talk, chat_template=template, add_generation_prompt=prompt
        )
        assert text == "<start>" + expected
    assert processor.tokenizer is not None


def test_instructions_and_consecutive_messages_join_the_question(processor: Any) -> None:
    talk: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "user", "content": "And where?"},
        {"role": "assistant", "content": [{"type": "text", "text": "A sign"}]},
    ]
    begun = processor.apply_chat_template(talk, continue_final_message=True)
    question = "Question: Be brief.\nWhat is it?\nAnd where? Answer:"
    assert begun == f"<|begin_of_text|>{processor.image_token}{question} A sign"
    assert "image" in talk[1]["content"][0]["type"]


def test_bos_is_added_once_and_the_picture_comes_first(processor: Any) -> None:
    marker, bos = processor.image_token, processor.tokenizer.bos_token
    plain = processor(images=PICTURE, text="a red sign", return_tensors="pt")
    for text in (f"{marker}a red sign", f"{bos}{marker}a red sign", f"a red{marker} sign"):
        for images in (PICTURE, [PICTURE], [[PICTURE]]):
            given = processor(images=images, text=text, return_tensors="pt")
            assert torch.equal(given["input_ids"], plain["input_ids"])
    ids = plain["input_ids"][0].tolist()
    assert ids[:19] == [0] + [2] * 18
    assert 0 not in ids[1:]
    assert processor(text="a red sign")["input_ids"] == [[0, *ids[19:]]]


def test_pictures_are_assigned_to_texts(processor: Any) -> None:
    other = sample_pictures()[0].path
    marker = processor.image_token
    for images, texts in (
        ([PICTURE, other], ["a", "b"]),
        ([[PICTURE], [other]], ["a", "b"]),
        ([PICTURE, other], [f"{marker}a", f"{marker}b"]),
        ([PICTURE], [f"{marker}a", "b"]),
        ([[PICTURE], []], ["a", "b"]),
    ):
        given = processor(images=images, text=texts, padding=True, return_tensors="pt")
        places = (given["token_type_ids"] == 1).sum(-1)
        assert int(places.sum()) == 18 * len(given["pixel_values"])
    with pytest.raises(UsageError, match=r"\(pictures: 3, texts: 2\)"):
        processor(images=[[PICTURE], [other], [PICTURE]], text=["a", "b"])
    with pytest.raises(UsageError, match=r"\(pictures: 1, texts: 2\)"):
        processor(images=[PICTURE], text=[f"{marker}a", f"{marker}b"])
    with pytest.raises(UsageError, match="Too many pictures"):
        processor(images=[PICTURE, other], text="a")
    same = processor(images=[PICTURE, PICTURE], text="a")
    assert len(same["pixel_values"]) == 1
    with pytest.raises(UsageError, match="no picture was passed"):
        processor(text=f"{marker}a")
    with pytest.raises(UsageError, match="no videos"):
        processor(text="a", videos=[PICTURE])
    with pytest.raises(UsageError, match="'video'"):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "video"}]}])


def test_padding_and_truncation_work_as_in_a_tokenizer(processor: Any) -> None:
    texts = ["a red sign", "a red sign that says ROAD"]
    left = processor(text=texts, padding=True, return_tensors="pt")
    assert left["attention_mask"][0, 0] == 0
    right = processor(text=texts, padding=True, padding_side="right", return_tensors="pt")
    assert right["attention_mask"][0, -1] == 0
    wide = processor(text=texts, padding="max_length", max_length=40, return_tensors="pt")
    assert wide["input_ids"].shape == (2, 40)
    cut = processor(text=texts[1], images=PICTURE, truncation=True, max_length=22)
    assert len(cut["input_ids"][0]) == 22
    with pytest.raises(UsageError, match="19 tokens"):
        processor(text=texts[1], images=PICTURE, truncation=True, max_length=10)
    assert "pixel_values" not in left
    assert processor(images=[PICTURE], return_tensors="pt")["pixel_values"].shape[0] == 1


# --- files --------------------------------------------------------------------------------------


def test_a_saved_processor_and_configuration_are_read_again(processor: Any, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path / "processor")
    again = AutoProcessor.from_pretrained(tmp_path / "processor")
    for key, value in asked(processor, PARTS["path"]).items():
        assert torch.equal(value, asked(again, PARTS["path"])[key]), key
    assert AutoImageProcessor.from_pretrained(tmp_path / "processor").size["height"] == 112
    cogvlm2_lite.hf.CogVLM2Config.from_pretrained(DEMO).save_pretrained(tmp_path)
    assert read_config(tmp_path) == CONFIG


def test_the_tokenizer_of_a_folder_without_a_padding_token_gets_the_models(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO, tmp_path / "m"))
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["pad_token"]
    file.write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").unlink()
    again = AutoProcessor.from_pretrained(folder)
    assert again.tokenizer.pad_token_id == 2
    assert AutoTokenizer.from_pretrained(folder) is not None


# --- the image processor and the tokenizer alone ------------------------------------------------


@pytest.mark.parametrize("where", ["folder", "by name", "class"])
def test_the_image_processor_of_a_folder_has_the_size_of_the_model(where: str) -> None:
    load: Any = {
        "folder": lambda: AutoImageProcessor.from_pretrained(DEMO),
        "by name": lambda: AutoImageProcessor.from_pretrained(
            pretrained_model_name_or_path=str(DEMO), trust_remote_code=True
        ),
        "class": lambda: cogvlm2_lite.hf.CogVLM2ImageProcessor.from_pretrained(DEMO),
    }[where]
    found = load()
    given = found(Image.open(PICTURE), return_tensors="np")["pixel_values"]
    assert np.array_equal(given, pixel_values(open_image(PICTURE), CONFIG.vision))


def test_the_tokenizer_alone_makes_the_prompt_of_ask() -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO)
    talk = [{"role": "user", "content": "What can you do?"}]
    ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
    prompt = encode_prompt(Tokenizer.from_folder(DEMO), CONFIG, "What can you do?", has_image=False)
    assert ids == prompt.input_ids[0].tolist()
    text = tokenizer.apply_chat_template(talk, tokenize=False)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids


def test_the_text_of_the_tokenizer_and_a_picture_are_what_ask_reads(processor: Any) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO)
    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    given = processor(text=text, images=PICTURE, return_tensors="pt")
    prompt = encode_prompt(Tokenizer.from_folder(DEMO), CONFIG, QUESTION, has_image=True)
    assert np.array_equal(given["input_ids"], prompt.input_ids)


def test_the_template_of_llama_is_replaced_and_one_of_the_user_stays(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO, tmp_path / "m", ignore=shutil.ignore_patterns("*.safet*")))
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": "<|start|>"}))
    load = AutoTokenizer.from_pretrained
    assert "Question: " in load(folder).chat_template
    assert load(folder, chat_template="mine").chat_template == "mine"
    (folder / "chat_template.jinja").write_text("saved")
    assert load(folder).chat_template == AutoProcessor.from_pretrained(folder).chat_template
    assert load(folder).chat_template == "saved"


def test_rows_of_the_tokenizer_are_padded_before_the_text() -> None:
    texts = ["Question: A? Answer:", "Question: What can you do? Answer:"]
    for side, place in ({}, 0), ({"padding_side": "right"}, -1):
        padded = AutoTokenizer.from_pretrained(DEMO, **side)(texts, padding=True)
        assert padded["attention_mask"][0][place] == 0


def test_tokenizers_and_image_processors_of_other_models_are_loaded_as_before(
    tmp_path: Path,
) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO)
    tokenizer.chat_template, tokenizer.padding_side = None, "right"
    tokenizer.save_pretrained(tmp_path)
    LlamaConfig(hidden_size=64, num_hidden_layers=1).save_pretrained(tmp_path)
    found = AutoTokenizer.from_pretrained(tmp_path)
    assert (found.chat_template, found.padding_side) == (None, "right")
    for load in AutoImageProcessor, CLIPImageProcessor:
        with pytest.raises(OSError, match=r"preprocessor_config\.json"):
            load.from_pretrained(tmp_path)
    with pytest.raises(OSError, match=r"preprocessor_config\.json"):
        CLIPImageProcessor.from_pretrained(DEMO)


@pytest.mark.parametrize("program", ["no_such_module", "no.such", "nothere.py"])
def test_a_program_that_does_not_exist_is_named(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["hf", program])
    with pytest.raises(SystemExit, match=f"no module or script '{program}'"):
        run_program()
