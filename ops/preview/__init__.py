"""What a change will do, for somebody who reviews it: from what Pulumi's preview tells to a page in the words of the stack file.

- command.py runs the preview and writes what it leaves; events.py reads what Pulumi told, as steps.
- settings.py compares the settings before and after; change.py has the steps by what they are of. risks.py tells which data and which nodes
  are touched, resources.py what is done to each resource and why, picture.py draws the topology. report.py puts it together.
- page.py writes it for people, by report.md.j2; escape.py keeps what a stack file holds from breaking that.

Pure, but for command.py: a recorded preview is all that its tests need. Pulumi is not imported.
"""
