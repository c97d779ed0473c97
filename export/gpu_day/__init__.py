"""``make gpu-day``: the measurements that decide designs, on a machine with a GPU and torch, in eight minutes.

``schedule`` gives each step a process and a time of its own; the other modules are the steps. ``--device cpu``
rehearses them with tiny sizes.
"""
