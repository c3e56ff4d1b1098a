"""Tools that a model may call while it answers: a calculator, sandboxed Python, and search.

A tool takes the text of a call and returns its result as text; the sampler sees one function, a
`toolbox.Toolbox`. This room may import data.records and lm.base. Start reading at
`toolbox.open_tools`; data/README.md says how the sandbox isolates a program.
"""
