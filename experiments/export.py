from door import enter

enter("export")
