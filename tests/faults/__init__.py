"""What must not harm anything, done to a real Home Assistant.

Every test ends with `aftermath.check`. Not made here: the loss of power (a kill stands
in for it; that files are synced before a process starts is tested in
`tests/builds/local`), a disk that returns wrong data, a kill within one chosen
instruction (a blocked save and many jobs that end around one kill stand in for it), and
systems without /proc.
"""
