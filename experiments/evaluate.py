from door import enter

enter("evaluate")
