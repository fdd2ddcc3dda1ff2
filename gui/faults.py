"""Sentences of the core in the window's language.

The core says what is wrong in English, with numbers and names in the sentence, and most of it comes
from another process as text. So sentences are known again here by their wording: each pattern below
is one with its variable places named. What is not listed stays English.
"""

from __future__ import annotations

import re
from functools import cache

from PySide6.QtCore import QCoreApplication

from cogvlm2_lite.errors import CogVLM2LiteError
from gui.words import QT_TRANSLATE_NOOP

PATTERNS = (  # where two would match, the narrower one stands first
    # the history (gui/data/history.py)
    QT_TRANSLATE_NOOP("Faults", "The disk is full."),
    QT_TRANSLATE_NOOP("Faults", "Make room; nothing that was kept is lost."),
    QT_TRANSLATE_NOOP("Faults", "The folder of the conversations can't be written to."),
    QT_TRANSLATE_NOOP("Faults", "Make it writable, or give another folder with --data."),
    QT_TRANSLATE_NOOP("Faults", "The file of the conversations can't be opened."),
    QT_TRANSLATE_NOOP(
        "Faults", "Make its folder readable and writable, or give another folder with --data."
    ),
    QT_TRANSLATE_NOOP("Faults", "Another program holds the file of the conversations."),
    QT_TRANSLATE_NOOP("Faults", "Close it and try again."),
    QT_TRANSLATE_NOOP("Faults", "The file of the conversations is damaged, or no database."),
    QT_TRANSLATE_NOOP("Faults", "The file of the conversations is damaged."),
    QT_TRANSLATE_NOOP("Faults", "Move it away to start anew, or put a copy back."),
    QT_TRANSLATE_NOOP("Faults", "The file of the conversations can't be read or written."),
    QT_TRANSLATE_NOOP("Faults", "Check that its disk is connected and has room."),
    QT_TRANSLATE_NOOP("Faults", "The conversations can't be read or written: {why}."),
    QT_TRANSLATE_NOOP("Faults", "This conversation is no longer there."),
    QT_TRANSLATE_NOOP("Faults", "The picture can't be kept: {why}."),
    QT_TRANSLATE_NOOP("Faults", "Make room on the disk of {folder}, or make the folder writable."),
    QT_TRANSLATE_NOOP("Faults", "The picture of this conversation is no longer there."),
    QT_TRANSLATE_NOOP("Faults", "The picture of this conversation is damaged on disk."),
    QT_TRANSLATE_NOOP("Faults", "{file} in {folder} is a database of another program."),
    QT_TRANSLATE_NOOP("Faults", "Move it away, or give another folder with --data."),
    QT_TRANSLATE_NOOP(
        "Faults",
        "The conversations were written by a newer version (format {theirs}; this version knows "
        "{ours}).",
    ),
    QT_TRANSLATE_NOOP("Faults", "Install the newer version again. Nothing was changed."),
    QT_TRANSLATE_NOOP("Faults", "The folder of the conversations can't be used: {why}."),
    QT_TRANSLATE_NOOP("Faults", "Give another folder with --data."),
    # files (gui/data/export.py, gui/data/import_json.py, gui/chat/offered.py)
    QT_TRANSLATE_NOOP("Faults", "{file} can't be written: {why}."),
    QT_TRANSLATE_NOOP("Faults", "Choose another place."),
    QT_TRANSLATE_NOOP("Faults", "The picture can't be read: its decoder crashed."),
    QT_TRANSLATE_NOOP("Faults", "{file} can't be read: {why}."),
    QT_TRANSLATE_NOOP("Faults", "Choose another file."),
    QT_TRANSLATE_NOOP("Faults", "Check that it still exists and that you may read it."),
    # pictures (cogvlm2_lite/inputs/image.py, gui/background/decoder.py)
    QT_TRANSLATE_NOOP("Faults", "The picture"),  # one without a name
    QT_TRANSLATE_NOOP("Faults", "{file} is a folder, not a picture."),
    QT_TRANSLATE_NOOP("Faults", "Give one file of it."),
    QT_TRANSLATE_NOOP("Faults", "{file} is not an ordinary file."),
    QT_TRANSLATE_NOOP("Faults", "{file} is empty (0 bytes)."),
    QT_TRANSLATE_NOOP("Faults", "{file} has no pixels ({width} x {height})."),
    QT_TRANSLATE_NOOP(
        "Faults",
        "{file} has {count} pixels, more than the {most} million that a picture may have.",
    ),
    QT_TRANSLATE_NOOP("Faults", "{file} has {size}, more than the {most} a picture may have."),
    QT_TRANSLATE_NOOP(
        "Faults",
        "{file} is damaged: it starts like a {kind} picture of {width} x {height} pixels, but the "
        "rest can't be decoded.",
    ),
    QT_TRANSLATE_NOOP(
        "Faults", "{file} is damaged: it starts like a {kind} picture, but can't be decoded."
    ),
    QT_TRANSLATE_NOOP("Faults", "{file} is {kind}, which this program does not open."),
    QT_TRANSLATE_NOOP("Faults", "a HEIC picture"),
    QT_TRANSLATE_NOOP("Faults", "an AVIF picture"),
    QT_TRANSLATE_NOOP("Faults", "a video"),
    QT_TRANSLATE_NOOP("Faults", "a PDF document"),
    QT_TRANSLATE_NOOP("Faults", "an SVG drawing"),
    QT_TRANSLATE_NOOP("Faults", "a web page"),
    QT_TRANSLATE_NOOP("Faults", "a Photoshop file"),
    QT_TRANSLATE_NOOP("Faults", "a JPEG XL picture"),
    QT_TRANSLATE_NOOP("Faults", "a JPEG 2000 picture"),
    QT_TRANSLATE_NOOP("Faults", "a ZIP archive or an office document"),
    QT_TRANSLATE_NOOP("Faults", "an icon file"),
    QT_TRANSLATE_NOOP("Faults", "a PostScript file"),
    QT_TRANSLATE_NOOP("Faults", "{file} is a text file, not a picture."),
    QT_TRANSLATE_NOOP("Faults", "{file} is in no known picture format."),
    QT_TRANSLATE_NOOP("Faults", "Save it again as PNG or JPEG with another program."),
    QT_TRANSLATE_NOOP("Faults", "Open a JPEG, PNG, WebP, BMP, GIF or TIFF picture."),
    QT_TRANSLATE_NOOP(
        "Faults", "Save it as JPEG or PNG with another program, then open that file."
    ),
    QT_TRANSLATE_NOOP("Faults", "Save a smaller copy: the model looks at 1344 by 1344 pixels."),
    QT_TRANSLATE_NOOP(
        "Faults", "Get the file again or save it once more from the program that made it."
    ),
    # the engine (cogvlm2_lite/engine/)
    QT_TRANSLATE_NOOP("Faults", "The engine was stopped."),
    QT_TRANSLATE_NOOP("Faults", "It can be started again."),
    QT_TRANSLATE_NOOP("Faults", "The engine's process ended by itself with exit code {code}."),
    QT_TRANSLATE_NOOP(
        "Faults",
        "The engine's process was killed ({signal}). Most often the system does this when memory "
        "runs out.",
    ),
    QT_TRANSLATE_NOOP("Faults", "The engine's process crashed ({signal})."),
    QT_TRANSLATE_NOOP("Faults", "The engine has a fault; the log of the program says where."),
    QT_TRANSLATE_NOOP(
        "Faults", "Please report it with the log and the output of `cogvlm2-lite doctor`."
    ),
    QT_TRANSLATE_NOOP("Faults", "There was not enough memory to go on."),
    QT_TRANSLATE_NOOP("Faults", "Close other programs and try again."),
    QT_TRANSLATE_NOOP(
        "Faults",
        "Memory ran out. {size} more of the weights now come from RAM or disk for each use; the "
        "answer goes on, more slowly.",
    ),
    QT_TRANSLATE_NOOP("Faults", "Memory ran out, and {size} is the least that would do."),
    QT_TRANSLATE_NOOP("Faults", "Close other programs, or plan with a shorter --context."),
    QT_TRANSLATE_NOOP(
        "Faults", "The context is full: the answer has {count} tokens and can't go on."
    ),
    QT_TRANSLATE_NOOP("Faults", "Ask a new question; the oldest turns make room for it."),
    QT_TRANSLATE_NOOP(
        "Faults",
        "The question has {count} tokens and the picture {picture}; the context holds {context}, "
        "and an answer needs some of them.",
    ),
    QT_TRANSLATE_NOOP(
        "Faults",
        "The question has {count} tokens; the context holds {context}, and an answer needs some of "
        "them.",
    ),
    QT_TRANSLATE_NOOP("Faults", "Shorten the question."),
    QT_TRANSLATE_NOOP(
        "Faults", "Shorten the question, or plan for a longer context: {most} tokens at most."
    ),
    # the plan (cogvlm2_lite/memory/plan.py)
    QT_TRANSLATE_NOOP(
        "Faults",
        "{phase} needs at least {least} on {device}, where {size} may be used ({origin}): "
        "{missing} are missing.",
    ),
    QT_TRANSLATE_NOOP(
        "Faults",
        "{phase} needs at least {least} on {device}, where {size} may be used: {missing} are "
        "missing.",
    ),
    QT_TRANSLATE_NOOP("Faults", "{size} given, {left} left for {others}"),
    QT_TRANSLATE_NOOP("Faults", "{size} free now, {left} left for {others}"),
    QT_TRANSLATE_NOOP("Faults", "the driver and other programs"),
    QT_TRANSLATE_NOOP("Faults", "other programs"),
    QT_TRANSLATE_NOOP("Faults", "Encode"),
    QT_TRANSLATE_NOOP("Faults", "Prefill with picture"),
    QT_TRANSLATE_NOOP("Faults", "Prefill of text"),
    QT_TRANSLATE_NOOP("Faults", "Decode"),
    QT_TRANSLATE_NOOP(
        "Faults", "Close other programs, give a larger budget, or use another device."
    ),
    QT_TRANSLATE_NOOP("Faults", "A context of {count} tokens would fit: --context {same}."),
    # a model's folder (cogvlm2_lite/config.py, weights/, inputs/tokenizer.py)
    QT_TRANSLATE_NOOP("Faults", "{folder} has no config.json, so it is not a model folder."),
    QT_TRANSLATE_NOOP(
        "Faults", "Give the folder that holds config.json and the .safetensors files."
    ),
    QT_TRANSLATE_NOOP(
        "Faults", "{file} has no vision_config, so this is not a CogVLM2 image model."
    ),
    QT_TRANSLATE_NOOP(
        "Faults", "CogVLM2 Lite runs cogvlm2-llama3-chat-19B and cogvlm2-llama3-chinese-chat-19B."
    ),
    QT_TRANSLATE_NOOP("Faults", "{file} holds keys this program does not know: {names}."),
    QT_TRANSLATE_NOOP(
        "Faults", "They may change the results. Check that this is a CogVLM2 image model."
    ),
    QT_TRANSLATE_NOOP("Faults", "{folder} is not a folder."),
    QT_TRANSLATE_NOOP("Faults", "{folder} holds no safetensors weights."),
    QT_TRANSLATE_NOOP(
        "Faults",
        "{folder} has its weights only as pickle ({files}), which can run any program when it is "
        "opened.",
    ),
    QT_TRANSLATE_NOOP(
        "Faults", "Get the safetensors version of the model. CogVLM2 Lite never opens pickle files."
    ),
    QT_TRANSLATE_NOOP("Faults", "{folder} has {files}, but no {index} to say what they hold."),
    QT_TRANSLATE_NOOP("Faults", "Copy or download {index} from where the weights came from."),
    QT_TRANSLATE_NOOP("Faults", "The folder lacks {tensors} of {count}."),
    QT_TRANSLATE_NOOP("Faults", "The folder has {tensors} that this CogVLM2 model has not."),
    QT_TRANSLATE_NOOP(
        "Faults", "This is another model, or its config.json does not belong to these weights."
    ),
    QT_TRANSLATE_NOOP("Faults", "{folder} lacks {files} of {count}."),
    QT_TRANSLATE_NOOP("Faults", "Download the folder again, or copy the missing files into it."),
    QT_TRANSLATE_NOOP("Faults", "This folder was written by another program or for another model."),
    QT_TRANSLATE_NOOP(
        "Faults", "The folder mixes files of two models. Download it again into an empty one."
    ),
    QT_TRANSLATE_NOOP(
        "Faults", "Index and files are of different versions. Download the folder again."
    ),
    QT_TRANSLATE_NOOP(
        "Faults", "{file}: its {count} tensors end at byte {end}, but the file has {size}."
    ),
    QT_TRANSLATE_NOOP("Faults", "{tensor} ends at byte {end}, but the file has only {size}."),
    QT_TRANSLATE_NOOP("Faults", "{file} has only {size} bytes, too few for a header."),
    QT_TRANSLATE_NOOP(
        "Faults", "{file} says its header is {length} bytes long, but only {size} follow."
    ),
    QT_TRANSLATE_NOOP(
        "Faults", "The file is damaged or was not downloaded completely. Copy or download it again."
    ),
    QT_TRANSLATE_NOOP("Faults", "{folder} has no {file}, so text can't be turned into tokens."),
    QT_TRANSLATE_NOOP("Faults", "Copy {file} from the original checkpoint into the folder."),
    QT_TRANSLATE_NOOP("Faults", "{count} files ({names})"),
    QT_TRANSLATE_NOOP("Faults", "{count} file ({names})"),
    QT_TRANSLATE_NOOP("Faults", "{count} tensors ({names})"),
    QT_TRANSLATE_NOOP("Faults", "{count} tensor ({names})"),
    QT_TRANSLATE_NOOP("Faults", "{names} and {count} more"),
    # converting (quantize/)
    QT_TRANSLATE_NOOP("Faults", "Stopped."),
    QT_TRANSLATE_NOOP(
        "Faults", "What is done is kept in DST.partial: run the same command again to go on."
    ),
    QT_TRANSLATE_NOOP("Faults", "There is no folder {folder}."),
    QT_TRANSLATE_NOOP("Faults", "{folder} is both the source and the destination."),
    QT_TRANSLATE_NOOP("Faults", "Give a new folder for the result; the source is only read."),
    QT_TRANSLATE_NOOP("Faults", "{folder} lies inside the source {source}."),
    QT_TRANSLATE_NOOP("Faults", "Give a folder beside it; the source is only read."),
    QT_TRANSLATE_NOOP("Faults", "{folder} is already quantized ({kinds})."),
    QT_TRANSLATE_NOOP("Faults", "its config.json says so"),
    QT_TRANSLATE_NOOP(
        "Faults", "Rounding twice loses quality: start from the released 16-bit checkpoint."
    ),
    QT_TRANSLATE_NOOP("Faults", "{folder} exists already and is not empty."),
    QT_TRANSLATE_NOOP("Faults", "{folder} exists already and was made {difference}."),
    QT_TRANSLATE_NOOP(
        "Faults", "Give a folder that does not exist yet, or delete or rename this one."
    ),
    QT_TRANSLATE_NOOP(
        "Faults", "{folder} exists and is not the work of an earlier quantize ({file} is in it)."
    ),
    QT_TRANSLATE_NOOP("Faults", "Move it away, or give another destination."),
    QT_TRANSLATE_NOOP("Faults", "{folder} was started {difference}."),
    QT_TRANSLATE_NOOP("Faults", "with {setting}, and now it is {value}"),
    QT_TRANSLATE_NOOP("Faults", "from another source ({name} {theirs}, and now {ours})"),
    QT_TRANSLATE_NOOP(
        "Faults",
        "Give the same options as before to continue it, or add --restart to throw it away and "
        "start over.",
    ),
    QT_TRANSLATE_NOOP("Faults", "Another run is writing {folder} at this moment ({why})."),
    QT_TRANSLATE_NOOP("Faults", "Wait until it has ended, or give another destination."),
    QT_TRANSLATE_NOOP(
        "Faults",
        "{size} are still to be written to {folder}, which has {free} free: {missing} are missing.",
    ),
    QT_TRANSLATE_NOOP(
        "Faults", "Free that much, or give a destination on another disk. Nothing was written."
    ),
    QT_TRANSLATE_NOOP("Faults", "The disk of {folder} is full ({size} free)."),
    QT_TRANSLATE_NOOP(
        "Faults", "Free some space and run the same command again: it goes on where it stopped."
    ),
    QT_TRANSLATE_NOOP("Faults", "{folder} can't be used: {why}."),
    QT_TRANSLATE_NOOP(
        "Faults", "Check rights and disk, or give another destination. What is done is kept."
    ),
    QT_TRANSLATE_NOOP(
        "Faults", "Calibrating needs {size} of scratch in {folder}, and {free} are free there."
    ),
    QT_TRANSLATE_NOOP("Faults", "Free some space, use fewer samples (--samples), or another disk."),
    QT_TRANSLATE_NOOP(
        "Faults", "{name} holds {value} at row {row}, column {column}, so it can't be rounded."
    ),
    QT_TRANSLATE_NOOP("Faults", "The checkpoint is damaged. Copy or download {file} again."),
    QT_TRANSLATE_NOOP("Faults", "{file} can't be read at {tensor}: {why}."),
    QT_TRANSLATE_NOOP(
        "Faults",
        "The disk or the network may be failing. Nothing that is done is lost: put a good copy of"
        " the file in its place and run the same command again.",
    ),
    QT_TRANSLATE_NOOP(
        "Faults", "{file} ends in the middle of {tensor}: {count} bytes are missing."
    ),
    QT_TRANSLATE_NOOP(
        "Faults",
        "The file was changed while it was read. Put the whole file back and run the same command"
        " again.",
    ),
    # a folder of pictures (cogvlm2_lite/batch/)
    QT_TRANSLATE_NOOP("Faults", "{folder} holds no picture ({kinds})."),
    QT_TRANSLATE_NOOP("Faults", "Add --recursive to look into the folders inside."),
    QT_TRANSLATE_NOOP("Faults", "Give the folder of the pictures."),
    QT_TRANSLATE_NOOP("Faults", "{file} holds something that batch did not write."),
    QT_TRANSLATE_NOOP("Faults", "Move it away, or give another folder with --output."),
    QT_TRANSLATE_NOOP("Faults", "Give another folder with --output."),
)


def tell(error: CogVLM2LiteError) -> str:
    """Give an error's message and hint in the window's language."""
    return f"{translate(error.message)} {translate(error.hint)}".strip()


def translate(text: str) -> str:
    """Give sentences of the core in the window's language; what is not known stays as it is."""
    for pattern in PATTERNS:
        found = _matcher(pattern).fullmatch(text)
        if found:
            values = found.groupdict()
            rest = values.pop(_REST)
            said = QCoreApplication.translate("Faults", pattern)
            said = said.format(**{name: translate(value) for name, value in values.items()})
            return f"{said} {translate(rest)}" if rest else said
    return text


_REST = "rest"


@cache
def _matcher(pattern: str) -> re.Pattern[str]:
    """Match a pattern, and what may follow a whole sentence: hints come joined to messages."""
    parts = re.split(r"\{(\w+)\}", pattern)
    words = "".join(f"(?P<{p}>.+?)" if i % 2 else re.escape(p) for i, p in enumerate(parts))
    rest = f"(?P<{_REST}>.+)"
    follows = f"(?: {rest})?" if pattern.endswith(".") else f"{rest}{{0}}"
    return re.compile(words + follows, re.DOTALL)
