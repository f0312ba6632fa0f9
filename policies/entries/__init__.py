"""Config entries as Consul takes, keeps and shows them.

    PUT /v1/config ─ JSON ─▶ decode_entry ─▶ normalise_entry ─▶ discovery.check_graph ─▶ Entries.put
                              400 refused      500 refused          500 refused

`schema_*` hold one table of fields for each kind (name, shape, spelling, whether a zero is shown); the decoder, the
zero values and the form that is read back all come from it. `check_*` hold the rules of each kind. Every refusal has
Consul's text; where Consul reports one of several mistakes at random, the first by name is reported here.
"""

from policies.entries.decode import DecodeError, decode_entry
from policies.entries.normalise import KINDS, normalise_entry
from policies.entries.store import Entries, entry_name

__all__ = ["KINDS", "DecodeError", "Entries", "decode_entry", "entry_name", "normalise_entry"]
