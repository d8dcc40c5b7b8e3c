"""What is sent to break in or to break down, and what is answered."""
