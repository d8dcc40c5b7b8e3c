"""Encodes prompts once, and checks what the tokenizers read of them."""
