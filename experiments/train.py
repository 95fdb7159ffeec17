from door import enter

enter("train")
