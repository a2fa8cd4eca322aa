#compdef phi4mm

_phi4mm_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _PHI4MM_COMPLETE=complete_zsh phi4mm)
}

compdef _phi4mm_completion phi4mm

