# Thin: what the commands do is in ops/. `make` alone lists them.
STACK ?= dev
PYTHON ?= python3

COMMANDS := help up preview preview-offline verify drift outputs status retry recheck secrets certs rotate down destroy env setup images test test-slow soak lint bench comment reviewed newest drift-check drift-issue docs clean
.PHONY: $(COMMANDS)

$(COMMANDS):
	@$(PYTHON) -m ops $@ $(STACK)
