"""The inputs of a question: picture, prompt and tokenizer. No torch here."""
