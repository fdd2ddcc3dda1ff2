"""How the window words messages of the core that name a command or an option of the command line.

The core's hints are for the terminal: "Add --recursive to include subfolders." The window has a
check box for that. A test finds templates of the core that are missing here.
"""

from __future__ import annotations

from gui.translatable import QT_TRANSLATE_NOOP

CONTEXT = "Wording"

_SETTINGS = QT_TRANSLATE_NOOP("Wording", "Choose the memory again on the page Settings.")
_DATA = QT_TRANSLATE_NOOP("Wording", "Choose one of them under “Data files”.")
_AGAIN = QT_TRANSLATE_NOOP(
    "Wording", "Choose “Ask everything again”, or another folder for the results."
)

_RESTART = QT_TRANSLATE_NOOP("Wording", "Choose “Start again from the beginning”.")
_CLOSE = QT_TRANSLATE_NOOP("Wording", "Close other programs, or allow more memory.")

WORDING = {
    "Give one size for all GPUs, or one for each.": _SETTINGS,
    "Write it like 8GiB, for two GPUs like 8GiB,12GiB, or auto for what is free.": _SETTINGS,
    "Write it like 16GiB, or auto for what is free.": _SETTINGS,
    "{value!r} is not a size for {option}.": QT_TRANSLATE_NOOP(
        "Wording", "{value!r} in the settings is not a size."
    ),
    "{value} for {option} is more than any computer has.": QT_TRANSLATE_NOOP(
        "Wording", "{value} in the settings is more than any computer has."
    ),
    "{size} for {option} is too small for any plan.": QT_TRANSLATE_NOOP(
        "Wording", "{size} in the settings is too small for any plan."
    ),
    "Close other programs, allow more memory, or use another device.": QT_TRANSLATE_NOOP(
        "Wording", "Close other programs, or allow more memory on the page Memory."
    ),
    "Use --device cpu, or install the {build} wheel of torch (see README) and a driver.": (
        QT_TRANSLATE_NOOP(
            "Wording",
            "Install the {build} build of torch and a driver, then start the program again.",
        )
    ),
    "Use --device cpu, or another version of torch.": QT_TRANSLATE_NOOP(
        "Wording", "Another version of torch may have what is missing."
    ),
    "Use --device cpu; Apple's GPUs need macOS and an Apple chip.": QT_TRANSLATE_NOOP(
        "Wording", "Apple's GPUs need macOS and an Apple chip."
    ),
    "{device} ({name}): {maker} GPUs are untested on real hardware. If answers look wrong, use "
    "--device cpu.": QT_TRANSLATE_NOOP(
        "Wording",
        "{device} ({name}): {maker} GPUs are untested on real hardware. Answers may be wrong.",
    ),
    "Add --recursive to include subfolders.": QT_TRANSLATE_NOOP(
        "Wording", "Choose “Include subfolders” to use the pictures in them, too."
    ),
    "Free some space or make its folder writable, then run the same command to resume.": (
        QT_TRANSLATE_NOOP(
            "Wording",
            "Free some space or make its folder writable, then press Start to resume.",
        )
    ),
    "Choose another folder with --output.": QT_TRANSLATE_NOOP(
        "Wording", "Choose another folder for the answers."
    ),
    "Move it away, or choose another folder with --output.": QT_TRANSLATE_NOOP(
        "Wording", "Move it away, or choose another folder for the answers."
    ),
    "Run the same command again; saved answers are kept.": QT_TRANSLATE_NOOP(
        "Wording", "Press Start again; saved answers are kept."
    ),
    "Free some space, or close the program that has the table open. Then run the same command to "
    "resume.": QT_TRANSLATE_NOOP(
        "Wording",
        "Free some space, or close the program that has the table open. Then press Start to "
        "resume.",
    ),
    "Choose the folder of a downloaded checkpoint (this program downloads nothing), `{demo}` for "
    "the small included model, or `{released}` for the released model.": QT_TRANSLATE_NOOP(
        "Wording",
        "Choose the folder of a downloaded checkpoint, or try the small demo model. This program "
        "downloads nothing.",
    ),
    "Choose the folder of a downloaded checkpoint (this program downloads nothing), or `{demo}` "
    "for the small included model.": QT_TRANSLATE_NOOP(
        "Wording",
        "Choose the folder of a downloaded checkpoint, or try the small demo model. This program "
        "downloads nothing.",
    ),
    "--vram has no effect: the model runs on the CPU, in RAM.": QT_TRANSLATE_NOOP(
        "Wording",
        "The budget of video memory has no effect: the model runs on the CPU, in RAM.",
    ),
    "Start again, with --device cpu if it happens again; `cogvlm2-lite doctor` shows which GPUs "
    "still respond.": QT_TRANSLATE_NOOP(
        "Wording",
        "Start the engine again. If it happens again, the report on the page About shows which "
        "GPUs still respond.",
    ),
    "Close other programs, or plan with a shorter --context.": QT_TRANSLATE_NOOP(
        "Wording", "Close other programs, or allow more memory on the page Memory."
    ),
    "Run `git lfs pull` in its folder, or download the file itself.": QT_TRANSLATE_NOOP(
        "Wording", "Download the file itself: this is only a pointer of Git LFS."
    ),
    "Run the same quantize command again: it continues where it stopped.": QT_TRANSLATE_NOOP(
        "Wording",
        "Convert the same checkpoint into the same folder again, on the page Convert: the "
        "conversion continues where it stopped.",
    ),
    "--vram and --card describe a GPU, but --device cpu uses none.": QT_TRANSLATE_NOOP(
        "Wording", "A budget of video memory needs a GPU, and the CPU was chosen."
    ),
    "Leave --device out, or limit the CPU with --ram.": QT_TRANSLATE_NOOP(
        "Wording", "Set a budget of RAM instead."
    ),
    "Answers are the same with every plan. --kv and --activations can change them.": (
        QT_TRANSLATE_NOOP("Wording", "Answers are the same with every plan.")
    ),
    'Run: pip install "cogvlm2-lite[heic]", or save it as JPEG or PNG.': QT_TRANSLATE_NOOP(
        "Wording", "Install the package pillow-heif, or save the picture as JPEG or PNG."
    ),
    "Run: pip install --upgrade pillow, or save it as JPEG or PNG.": QT_TRANSLATE_NOOP(
        "Wording", "Install a newer version of Pillow, or save the picture as JPEG or PNG."
    ),
    "--vram has {given} sizes, but the number of usable GPUs is {count}.": QT_TRANSLATE_NOOP(
        "Wording",
        "The budget of video memory has {given} sizes, but the number of usable GPUs is {count}.",
    ),
    "A context of {context} tokens would fit: --context {context}.": QT_TRANSLATE_NOOP(
        "Wording",
        "Allow more memory on the page Memory. In this memory, only a context of {context} tokens "
        "would fit.",
    ),
    "Please report it with the log and the output of `cogvlm2-lite doctor`.": QT_TRANSLATE_NOOP(
        "Wording", "Please report it with the log and the report on the page About."
    ),
    "Use the same samples and options as before, or add --restart.": QT_TRANSLATE_NOOP(
        "Wording", "Choose the same calibration as before, or another new folder."
    ),
    "Free some space, use fewer samples (--samples), or use another disk.": QT_TRANSLATE_NOOP(
        "Wording", "Free some space, or use another disk."
    ),
    "Finished work is kept in DST.partial: run the same command again to continue.": (
        QT_TRANSLATE_NOOP("Wording", "Finished work is kept: press Start to continue.")
    ),
    "Finished blocks are kept. Close other programs that use this memory and run the same command "
    "again: it continues where it stopped. Or add --device cpu --restart.": (
        QT_TRANSLATE_NOOP(
            "Wording",
            "Finished work is kept: close other programs that use this memory, and press Start to "
            "continue.",
        )
    ),
    "Calibrating takes about {time}, and up to {size} of disk space until it is finished. You can "
    "stop it; the same command resumes it.": (
        QT_TRANSLATE_NOOP(
            "Wording",
            "Calibrating takes about {time}, and up to {size} of disk space until it is finished. "
            "You can stop it and resume it later.",
        )
    ),
    "Use the same options as before to continue it, or add --restart to delete it and start "
    "over.": (
        QT_TRANSLATE_NOOP(
            "Wording",
            "Choose the same calibration as before to continue it, or another new folder.",
        )
    ),
    "Run the same command again with --shard-size {smaller}: a calibration so far is kept, and the "
    "weight files are written anew. Or choose a destination on another disk.": QT_TRANSLATE_NOOP(
        "Wording", "Choose a new folder on another disk, or free some space."
    ),
    "Another program changed the folder. Run the command again.": QT_TRANSLATE_NOOP(
        "Wording", "Another program changed the folder. Press Start again."
    ),
    "Free some space and run the same command again: it continues where it stopped.": (
        QT_TRANSLATE_NOOP(
            "Wording", "Free some space and press Start: the conversion continues where it stopped."
        )
    ),
    "The file was changed while it was read. Put the whole file back and run the same command "
    "again.": QT_TRANSLATE_NOOP(
        "Wording",
        "The file was changed while it was read. Put the whole file back and press Start again.",
    ),
    "The disk or the network may be failing. Finished work is kept: put a good copy of the file in "
    "its place and run the same command again.": QT_TRANSLATE_NOOP(
        "Wording",
        "The disk or the network may be failing. Finished work is kept: put a good copy of the "
        "file in its place and press Start again.",
    ),
    # The page Teach.
    "Correct them, or use --allow-skipped to train without them.": QT_TRANSLATE_NOOP(
        "Wording", "Correct them, or choose “Train even if many rows can't be used”."
    ),
    "Choose a smaller --held-out, or 0 to hold out none.": QT_TRANSLATE_NOOP(
        "Wording", "Use more pictures."
    ),
    "Use a lower --lr than {rate} with --restart, or look at these rows. The adapter and the state "
    "of step {saved} are kept.": QT_TRANSLATE_NOOP(
        "Wording", "Look at these rows. The adapter and the state of step {saved} are kept."
    ),
    "Use a lower --lr than {rate} with --restart. The state of step {saved} is kept.": (
        QT_TRANSLATE_NOOP("Wording", "The state of step {saved} is kept.")
    ),
    "The held-out loss is {after} with the adapter and {before} without it, so it does not help. "
    "Look at the data, or use another --lr.": QT_TRANSLATE_NOOP(
        "Wording",
        "The held-out loss is {after} with the adapter and {before} without it, so it does not "
        "help. Look at the data.",
    ),
    "The held-out loss has risen at {count} evaluations. The adapter of step {step} is kept; "
    "--patience stops such a run.": QT_TRANSLATE_NOOP(
        "Wording",
        "The held-out loss has risen at {count} evaluations. The adapter of step {step} is kept; "
        "you can stop the run.",
    ),
    "The loss has been above {loss} for {steps} steps, and was about {before} before. A lower --lr "
    "may help.": QT_TRANSLATE_NOOP(
        "Wording",
        "The loss has been above {loss} for {steps} steps, and was about {before} before.",
    ),
    "The answers are learnt by heart: their loss is {loss}, while the held-out loss rises. The "
    "adapter of step {step} is kept. Fewer --epochs or more data help.": QT_TRANSLATE_NOOP(
        "Wording",
        "The answers are learnt by heart: their loss is {loss}, while the held-out loss rises. The "
        "adapter of step {step} is kept. Fewer passes or more pictures help.",
    ),
    "Run the same command again: it continues from the last saved state, of step {saved}. "
    "`cogvlm2-lite doctor` shows which GPUs still respond.": QT_TRANSLATE_NOOP(
        "Wording",
        "Press Continue: it goes on after step {saved}, which is saved. The report on the page "
        "About shows which GPUs still respond.",
    ),
    "Free some space, then run the same command again: it continues from the last saved state, of "
    "step {step}.": QT_TRANSLATE_NOOP(
        "Wording", "Free some space, then press Continue: it goes on after step {step}."
    ),
    "More epochs can be added to a run with --schedule constant. Otherwise use the same number, "
    "another folder, or --restart to start again.": QT_TRANSLATE_NOOP(
        "Wording",
        "Choose the same number of passes, another folder for the adapter, or “Start again from "
        "the beginning”.",
    ),
    "Use --dtype float32.": QT_TRANSLATE_NOOP(
        "Wording", "The window can't train on this GPU. The command finetune can, in float32."
    ),
    "Load one with --adapter FOLDER.": QT_TRANSLATE_NOOP(
        "Wording", "Choose one with the button next to the model."
    ),
    "Close other programs, allow more memory, or use a smaller --max-tokens or --rank.": _CLOSE,
    "Close other programs, or use a smaller --rank or --max-tokens.": _CLOSE,
    "Choose with --labels en, zh or both.": QT_TRANSLATE_NOOP(
        "Wording", "Choose one of them, or both, under “Labels”."
    ),
    "Start again with --restart.": _RESTART,
    "Use the same settings to continue, another folder, or --restart to start again.": (
        QT_TRANSLATE_NOOP(
            "Wording",
            "Choose the same settings to continue, another folder for the adapter, or “Start again "
            "from the beginning”.",
        )
    ),
    "Free some space, then run the same command again: it continues.": QT_TRANSLATE_NOOP(
        "Wording", "Free some space, then press Continue."
    ),
    "Use the model it was made for, or --any-base to use it all the same.": QT_TRANSLATE_NOOP(
        "Wording", "Open the model that it was made for."
    ),
    # The page Evaluate.
    "Name one of them with --data.": _DATA,
    "Name the data file with --data.": _DATA,
    "Name the benchmark, and this folder with --data.": QT_TRANSLATE_NOOP(
        "Wording", "Choose the benchmark, and this folder under “Data files”."
    ),
    "Put {file} into {folder}, or name a file or folder with --data.": QT_TRANSLATE_NOOP(
        "Wording", "Put {file} into {folder}, or choose a file or folder under “Data files”."
    ),
    "The Arrow files in {cache} are not read: download the data set into {hub} with "
    "`hf download --repo-type dataset`, or name a file or folder with --data.": QT_TRANSLATE_NOOP(
        "Wording",
        "The Arrow files in {cache} are not read: download the data set into {hub}, or choose a "
        "file or folder under “Data files”.",
    ),
    "With --export, answers for a server can be written without a score.": QT_TRANSLATE_NOOP(
        "Wording", "The window can't write answers for a server."
    ),
    "Run `git lfs pull` in its folder, or download the pictures themselves.": QT_TRANSLATE_NOOP(
        "Wording", "Download the pictures themselves: these files only say where they are."
    ),
    'Run: pip install "cogvlm2-lite[evaluate]"': QT_TRANSLATE_NOOP(
        "Wording", "Install the package pyarrow for this program, then start it again."
    ),
    "Choose another folder with --output, or add --restart to ask everything again.": _AGAIN,
    "Add --restart to ask everything again, or choose another folder with --output.": _AGAIN,
    "Use --device and --dtype as before, add --restart to ask everything again, or choose another "
    "folder with --output.": _AGAIN,
}
"""The window's words by the template of the core. They have no other placeholders."""
