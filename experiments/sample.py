from door import enter

enter("sample")
