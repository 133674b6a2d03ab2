"""The program that `pulumi up` runs: stack file -> settings -> plan -> components -> outputs."""

import gc
import importlib
import threading
from datetime import UTC, datetime

import pulumi
from pulumi.runtime import config as pulumi_config

from components import preflight
from configs import loader
from configs.plan import plan_of
from configs.problems import SettingsError

# For speed. The program ends soon: garbage need not be collected. Pulumi's SDK sends 120 debug lines to Pulumi's engine and waits for each
# (pulumi#7292): they are dropped, also with `--debug`. pulumi_docker takes a tenth of a second to import: a thread does it, while this one
# reads the stack's state and asks the Docker engine. The program ends after it: an import that goes on while runpy shortens sys.path fails.
gc.disable()
vars(pulumi.log).update(debug=lambda *_, **__: None)
(loading := threading.Thread(target=importlib.import_module, args=["components.stack"])).start()

# pulumi.Config reads keys that it is told; only the whole configuration shows a key that is misspelt.
config = pulumi_config.CONFIG.get()
try:
    loaded = loader.load(config, filter(pulumi_config.is_config_secret, config), pulumi.get_stack(), datetime.now(UTC))
    situation = preflight.look(loaded, config)
except SettingsError as refusal:  # Pulumi prints its text without a traceback. No resource was touched.
    raise pulumi.RunError(str(refusal)) from None
finally:
    loading.join()

plan = plan_of(loaded.settings)
for warning in (*plan.warnings, *loaded.warnings, *situation.warnings()):
    pulumi.log.warn(warning)

stack = importlib.import_module("components.stack").Stack(plan, loaded, situation)

for name, value in stack.outputs().items():
    pulumi.export(name, value)
