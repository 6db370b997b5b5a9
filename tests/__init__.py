# A package: IPython 7 puts one of this name on the path, which would come before a bare folder.
