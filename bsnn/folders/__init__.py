"""Folders of images as they lie: which files, of which class, and what they are known by. Nothing is decoded here.

`layouts` lists them, `ground_truth` reads labels of flat folders, `listing` gives the digest that stands in keys.
"""
