"""The forwarder: sends what its Orthanc holds to the Orthanc's destinations, until each has confirmed it.

Runs beside an Orthanc, in a container of the same image, with Python's standard library alone. Whether an image has still to go
somewhere is derived from the Orthanc's own database: what it stores, against a record, in a metadata of each series, of what each
destination has confirmed (record.py). Nothing that this program holds in memory is needed to go on after it was killed.

    watch.py     finds series that may hold something new: the changes log, and a sweep for whatever that misses
    backlog.py   those series, oldest first; what is sent together
    ledger.py    what waits for one destination, what is on its way, and what became of it, written to the record
    look.py      looks at one of those series: what of it is not confirmed
    link.py      one destination: the threads that send, and that wait for its confirmation
    dicom.py     what is asked of Orthanc to send images and to have them confirmed
    trouble.py   what a failure means, and when to try again
    keeper.py    deletes what every destination has confirmed, where the stack file says so
    web.py       status, metrics, and what can be asked for
"""
