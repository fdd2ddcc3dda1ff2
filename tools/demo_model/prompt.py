"""The released model's chat prompt for one conversation."""

from tools.demo_model.questions import Conversation


def prompt_text(asked: Conversation) -> str:
    """Word a conversation as the released chat template does; it ends in `Answer:`."""
    turns = "".join(f"Question: {query} Answer: {reply}\n" for query, reply in asked.history)
    return f"{turns}Question: {asked.question} Answer:"
