"""What a question is made of: the picture, the prompt and the tokenizer. No torch in here."""
