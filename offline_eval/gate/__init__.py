"""May a version serve?"""
