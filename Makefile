# Thin: what the commands do is in ops/. `make` alone lists them.
STACK ?= dev
PYTHON ?= python3

COMMANDS := help up preview verify drift outputs status retry recheck secrets certs rotate down destroy env setup images test soak lint bench docs clean
.PHONY: $(COMMANDS)

$(COMMANDS):
	@$(PYTHON) -m ops $@ $(STACK)
