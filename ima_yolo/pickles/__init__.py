"""Files of `torch.save` and caches of labels, looked through before and after they are loaded: nothing of theirs runs.

Safe loading lets a file name any class of layers and losses, and hand them states and arguments of its choosing: some
open files and addresses, some call what they are handed, and all take as much memory as they are told to. So the pickle
is gone through first (`check`, by `reader`), with stand-ins that know the few things that `torch.save` makes of a
checkpoint (`names`, `arguments`, `stand_ins`); a file that does anything else is refused. What was then loaded is
looked through once more before it is used (`content`).
"""
