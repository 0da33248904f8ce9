"""Training of students and teachers. Start at `train_student.py`."""
