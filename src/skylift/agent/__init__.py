"""The Linux device agent: two slots, an atomic journal, a pure machine that says what comes next.

Nothing of the server rides along: this package imports core, firmware and trust only.
"""
