from door import enter

if __name__ == "__main__":  # processes that read data run this file again
    enter("export")
